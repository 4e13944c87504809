"""The zoo's masks said again in plain Python, for 20 queries and 32 keys: what each paper's words keep.

A row is (consts and params, the mask's inputs, the rule). The rule takes (q, k, pos) and reads nothing of the
spec; ``pos`` is the place of query q among the keys.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

Rule = Callable[[int, int, int], bool]
Row = tuple[Mapping[str, Any], Mapping[str, Tensor], Rule]

Q_LEN, K_LEN = 20, 32


def ints(*values: int) -> Tensor:
    return torch.tensor(values, dtype=torch.int32)


def drawn(*shape: int, below: int) -> Tensor:
    return torch.randint(below, shape, generator=torch.Generator().manual_seed(1)).int()


def flags(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(1)) < 0.3


DOC = [0] * 5 + [2] * 9 + [3] * 1 + [7] * 17  # of each of 32 keys
BLOCKS = drawn(4, 3, below=4)
CHOSEN = flags(1, 1, 3, 4)
PICKED = flags(1, 1, Q_LEN, 4)
COLUMNS, DIAGONALS = flags(1, 1, K_LEN), drawn(1, 1, K_LEN, below=2).bool()
ORDER = torch.randperm(K_LEN, generator=torch.Generator().manual_seed(1)).int()
PLACES = [3 * q + 2 for q in range(Q_LEN)], [2 * k for k in range(K_LEN)]
# A tree of 20 drafted tokens, depth first: 0 has the children 1, 8 and 15; 1 has 2 and 5; else chains.
PARENT = [-1, 0, 1, 2, 3, 1, 5, 6, 0, 8, 9, 10, 11, 12, 13, 0, 15, 16, 17, 18]
GROUPS = [0, 1, 2, 3, 4, 5, 5, 5, 5, 5, 10, 11, 12, 13, 13, 13, 13, *range(17, 32)]
ENDS = {0: 2, 2: 9, 3: 14, 7: 21}  # where each document's prefix ends
IMAGES = [0] * 3 + [1] * 6 + [3] * 8 + [4] * 3  # that stand before each of 20 words
SCALES = [0] * 1 + [1] * 4 + [2] * 9 + [3] * 16 + [4] * 2


def lineage(token: int) -> set[int]:
    found = set()
    while token >= 0:
        found.add(token)
        token = PARENT[token]
    return found


ANCESTOR = torch.tensor([[key in lineage(token) for key in range(20)] for token in range(20)])
BRANCH_END = [max(t for t in range(20) if key in lineage(t)) + 1 + 12 for key in range(20)]


def causal(q: int, k: int, pos: int) -> bool:
    return k <= pos


def near(a: int, b: int, length: int, radius: int) -> bool:
    """Whether b lies in the window of 2 * radius + 1 around a, which is shifted to stay in the length."""
    start = min(max(a - radius, 0), length - 1 - 2 * radius)
    return start <= b <= start + 2 * radius


def morton(index: int) -> tuple[int, int]:
    bits = f"{index:016b}"
    return int(bits[1::2], 2), int(bits[0::2], 2)


def tiled(index: int, across: int, side: int) -> tuple[int, int]:
    """(column, row) of a pixel, where tiles of side x side lie one after another, ``across`` in a row."""
    tile, inside = divmod(index, side * side)
    return tile % across * side + inside % side, tile // across * side + inside // side


def square(q: tuple[int, int], k: tuple[int, int], width: int, height: int, radius: int) -> bool:
    return near(q[0], k[0], width, radius) and near(q[1], k[1], height, radius)


def box(index: int, size: int, across: int, down: int) -> tuple[int, int, int]:
    tile = index // size
    return tile % across, tile // across % down, tile // across // down


def tiles_near(q: tuple[int, ...], k: tuple[int, ...], sides: tuple[int, ...]) -> bool:
    return all(near(a, b, side, 1) for a, b, side in zip(q, k, sides, strict=True))


def diffusion(q: int, k: int, block: int, half: int) -> bool:
    noised_q, noised_k = q < half, k < half
    query, key = q % half // block, k % half // block
    if noised_q:
        return query == key if noised_k else key < query
    return not noised_k and key <= query


MORE_MASKS: Mapping[str, Row] = {
    **dict.fromkeys(
        ("fox", "grok1", "kerple_log", "kerple_power", "llama4_global", "sandwich"), ({}, {}, causal)
    ),
    **dict.fromkeys(("scalable_softmax", "t5_decoder"), ({}, {}, causal)),
    **dict.fromkeys(("checkerboard", "graphormer_edge", "token_merging"), ({}, {}, lambda q, k, pos: True)),
    "alibi_documents": ({}, {"doc": ints(*DOC)[None]}, lambda q, k, pos: k <= pos and DOC[k] == DOC[pos]),
    "batchify": ({"group": 7}, {}, lambda q, k, pos: k // 7 == pos // 7),
    "bigbird": (
        {"block": 8},
        {"random": BLOCKS},
        lambda q, k, pos: (
            abs(pos // 8 - k // 8) <= 1
            or {pos // 8, k // 8} & {0, 3} != set()
            or k // 8 in BLOCKS[pos // 8].tolist()
        ),
    ),
    "block_causal": ({"block": 6}, {}, lambda q, k, pos: k < (pos // 6 + 1) * 6),
    "block_diffusion": ({"block": 4}, {}, lambda q, k, pos: diffusion(q, k, 4, 16)),
    "block_sparse": (
        {"block": 8},
        {"chosen": CHOSEN},
        lambda q, k, pos: k <= pos and bool(CHOSEN[0, 0, q // 8, k // 8]),
    ),
    "criss_cross": ({"width": 6}, {}, lambda q, k, pos: q // 6 == k // 6 or q % 6 == k % 6),
    "decode_offset": ({}, {"offset": ints(5)}, lambda q, k, pos: k <= q + 5),
    "dilated_window": (
        {"window": 4, "step": 3},
        {},
        lambda q, k, pos: k in (pos, pos - 3, pos - 6, pos - 9),
    ),
    "duo_attention": (
        {"window": 5, "keep": 2},
        {"streaming": torch.tensor([True])},
        lambda q, k, pos: k <= pos and (pos - k < 5 or k < 2),
    ),
    "fixed_sparse": (
        {"block": 8, "summary": 2},
        {},
        lambda q, k, pos: k <= pos and (k // 8 == pos // 8 or k % 8 in (6, 7)),
    ),
    "flamingo": ({"latents": 8}, {"images": ints(*IMAGES)[None]}, lambda q, k, pos: k // 8 + 1 == IMAGES[q]),
    "gemma3": ({"window": 5}, {}, lambda q, k, pos: pos - 5 < k <= pos),
    "head_windows": ({}, {"window": ints(6)}, lambda q, k, pos: pos - 6 < k <= pos),
    "key_padding": ({}, {"length": ints(23)}, lambda q, k, pos: k < 23),
    "left_padded": (
        {},
        {"first": ints(4), "last": ints(27)},
        lambda q, k, pos: k in range(4, min(27, pos + 1)),
    ),
    "logsparse": ({}, {}, lambda q, k, pos: pos - k in (0, 1, 2, 4, 8, 16)),
    "longformer": (
        {"radius": 3, "globals": 14},
        {},
        lambda q, k, pos: abs(pos - k) <= 3 or k < 14 or pos < 14,
    ),
    "longnet": (
        {"segment": 12, "step": 3},
        {},
        lambda q, k, pos: k <= pos and k // 12 == pos // 12 and k % 3 == 0 and pos % 3 == 0,
    ),
    "moba": (
        {"block": 8},
        {"chosen": PICKED},
        lambda q, k, pos: k <= pos and (k // 8 == pos // 8 or bool(PICKED[0, 0, q, k // 8])),
    ),
    "modernbert_local": (
        {"radius": 3},
        {"doc": ints(*DOC)[None]},
        lambda q, k, pos: abs(pos - k) <= 3 and DOC[k] == DOC[pos],
    ),
    "natten_2d": (
        {"width": 8, "height": 4, "radius": 1},
        {},
        lambda q, k, pos: square((q % 8, q // 8), (k % 8, k // 8), 8, 4, 1),
    ),
    "natten_tiled": (
        {"width": 8, "height": 4, "radius": 1, "tile": 2},
        {},
        lambda q, k, pos: square(tiled(q, 4, 2), tiled(k, 4, 2), 8, 4, 1),
    ),
    "natten_morton": (
        {"side": 8, "radius": 2},
        {},
        lambda q, k, pos: square(morton(q), morton(k), 8, 8, 2),
    ),
    "navit": ({}, {"image": ints(*DOC)[None]}, lambda q, k, pos: DOC[k] == DOC[pos]),
    "packed_prefix": (
        {},
        {"doc": ints(*DOC)[None], "prefix_end": ints(*(ENDS[n] for n in DOC))[None]},
        lambda q, k, pos: DOC[k] == DOC[pos] and (k <= pos or k < ENDS[DOC[pos]]),
    ),
    "parallel_contexts": (
        {},
        {"context": ints(*DOC)[None], "task": ints(7)},
        lambda q, k, pos: k <= pos and (pos >= 15 or DOC[k] == DOC[pos]),
    ),
    "permutation_lm": ({}, {"order": ORDER[None]}, lambda q, k, pos: bool(ORDER[k] <= ORDER[pos])),
    "phi3_small": (
        {"block": 2, "local": 3, "stride": 4},
        {},
        lambda q, k, pos: k <= pos and (pos // 2 - k // 2 < 3 or k // 2 in (3, 7, 11, 15)),
    ),
    "retro": ({"chunk": 4, "retrieved": 8}, {}, lambda q, k, pos: 3 + 4 * (k // 8) <= q < 7 + 4 * (k // 8)),
    "scale_causal": ({}, {"scale_of": ints(*SCALES)}, lambda q, k, pos: SCALES[k] <= SCALES[pos]),
    "shared_prefix": (
        {},
        {"branch": ints(*DOC)[None]},
        lambda q, k, pos: k <= pos and (k < 5 or DOC[k] == DOC[pos]),
    ),
    "sta_2d": (
        {"area": 2, "across": 4, "down": 3},
        {},
        lambda q, k, pos: max(q, k) >= 24 or tiles_near(box(q, 2, 4, 3)[:2], box(k, 2, 4, 3)[:2], (4, 3)),
    ),
    "sta_3d": (
        {"size": 1, "across": 4, "down": 3, "deep": 3},
        {},
        lambda q, k, pos: tiles_near(box(q, 1, 4, 3), box(k, 1, 4, 3), (4, 3, 3)),
    ),
    "streaming_asr": (
        {"chunk": 5, "left": 1},
        {},
        lambda q, k, pos: pos // 5 * 5 - 5 <= k < pos // 5 * 5 + 5,
    ),
    "strided_sparse": (
        {"stride": 5},
        {},
        lambda q, k, pos: k <= pos and (pos - k <= 5 or (pos - k) % 5 == 0),
    ),
    "striped_ring": (
        {},
        {"q_place": ints(*PLACES[0]), "k_place": ints(*PLACES[1])},
        lambda q, k, pos: 2 * k <= 3 * q + 2,
    ),
    "svg_spatial": (
        {"prompt": 3, "frame": 4, "width": 2},
        {},
        lambda q, k, pos: q < 3 or k < 7 or abs(q - k) < 8,
    ),
    "svg_temporal": (
        {"prompt": 3, "frame": 6, "reach": 2},
        {},
        lambda q, k, pos: q < 3 or k < 3 or abs((q + 3) % 6 - (k + 3) % 6) < 2,
    ),
    "transfusion": (
        {},
        {"group": ints(*GROUPS)[None]},
        lambda q, k, pos: k <= pos or GROUPS[k] == GROUPS[pos],
    ),
    "tree_intervals": (
        {},
        {"branch_end": ints(*[0] * 12, *BRANCH_END)[None]},
        lambda q, k, pos: k < 12 or k - 12 in lineage(q),
    ),
    "tree_speculation": ({}, {"ancestor": ANCESTOR}, lambda q, k, pos: k < 12 or k - 12 in lineage(q)),
    "vertical_slash": (
        {},
        {"vertical": COLUMNS, "slash": DIAGONALS},
        lambda q, k, pos: k <= pos and bool(COLUMNS[0, 0, k] or DIAGONALS[0, 0, pos - k]),
    ),
}
