"""Short work: what takes a forward whose tiles leave multiprocessors idle, or hardly give each a second one.

B1 H16 S512 D64:   128 tiles of 64 queries on 132 multiprocessors   ->   Triton's forward, by pointers
B1 H32 S512 D128:  256 tiles                                        ->   Gluon's forward

Gluon's programs for sm_90 mostly take two or three such tiles each and have a multiprocessor for themselves,
so that few of them leave more of the card idle than Triton's. Those of one tile are the faster ones at any
length, and so is the backward (full, D=64 and 128, S=512 to 2048: 29.7 microseconds for 29.1 at worst, mostly
5 to 40% less). A descriptor is made by the host for every launch and fetched by every program.
"""

from __future__ import annotations

#: Largest head dimension -> tiles of 64 queries a multiprocessor. With more, Gluon's forward is the faster
#: one. H200, bf16, microseconds of Triton's and Gluon's. D=64: 4 a multiprocessor 55.0 and 57.4, 8 89.3 and
#: 84.7; softcap 4 17.3 and 22.0. D=128: 1 10.0 and 10.9, 2 13.2 and 11.4; causal 1 10.0 and 11.6, 2 12.7 and
#: 11.9. D=256: 1/4 20.8 and 15.2.
FILLED: dict[int, int] = {64: 6, 128: 1, 256: 0}

#: The widest heads that Triton's forward reads by pointers where there is at most one tile of 64 queries a
#: multiprocessor: 7.5 microseconds for 8.3 by descriptors, and 7 fewer of the host's.
BY_POINTERS = 64
