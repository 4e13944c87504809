"""Peak memory above the inputs, forward and backward, of attngen and of standard attention.

    python benchmarks/memory.py -o out

S = 4096, 16384 and 65536 at B1 H8 D64, bfloat16, causal. Gradients and output count; q, k, v and the output's
gradient do not.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from attngen.bench.machine import machine, one_line
from attngen.bench.measure import run, short
from attngen.bench.peers import PEERS, make_case
from attngen.bench.rows import ROWS, Shape
from attngen.bench.table import columns

MIB = 2**20


def peak_bytes(peer: str, row: str, shape: Shape, dtype: torch.dtype) -> int:
    """The most memory in use during one forward and backward, less what the inputs take."""
    case = make_case(ROWS[row], shape, dtype, torch.device("cuda"))
    gc.collect()
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    results = run(PEERS[peer].prepare(case), case)
    torch.cuda.synchronize()
    del results
    return torch.cuda.max_memory_allocated() - before


def main() -> int:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--row", default="causal", choices=list(ROWS))
    parser.add_argument("--lengths", default="4096,16384,65536")
    parser.add_argument("--peers", default="attngen,standard")
    parser.add_argument("-o", "--output", type=Path, help="folder for memory.json and memory.md")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("torch sees no CUDA device")

    peers = options.peers.split(",")
    lengths = [int(n) for n in options.lengths.split(",")]
    warm = Shape("warm", 1, 8, 256, 64)
    for peer in peers:  # workspaces of the libraries are no part of the figure
        peak_bytes(peer, options.row, warm, torch.bfloat16)

    found: dict[int, dict[str, int | str]] = {}
    for length in lengths:
        shape = Shape(str(length), 1, 8, length, 64)
        found[length] = {}
        for peer in peers:
            try:
                found[length][peer] = peak_bytes(peer, options.row, shape, torch.bfloat16)
            except Exception as error:
                found[length][peer] = short(error)

    cells = [["S", *(f"{p} MiB" for p in peers), "attngen bytes a token", "factor"]]
    for length, by_peer in found.items():
        mine, theirs = by_peer.get("attngen"), by_peer.get("standard")
        factor = f"{theirs / mine:.1f}x" if isinstance(mine, int) and isinstance(theirs, int) else "-"
        each = f"{mine / length:.0f}" if isinstance(mine, int) else "-"
        shown = (f"{b / MIB:.1f}" if isinstance(b, int) else b for b in by_peer.values())
        cells.append([str(length), *shown, each, factor])
    title = f"{one_line(machine())}; B1 H8 D64 bfloat16 {options.row}, above the inputs"
    text = f"{title}\n\n{columns(cells)}\n"
    print(text)
    if options.output:
        options.output.mkdir(parents=True, exist_ok=True)
        record = {"machine": machine(), "row": options.row, "bytes": found}
        (options.output / "memory.json").write_text(json.dumps(record, indent=1) + "\n")
        (options.output / "memory.md").write_text(text)
    return 0 if all(isinstance(found[n].get("attngen", 0), int) for n in lengths) else 1


if __name__ == "__main__":
    sys.exit(main())
