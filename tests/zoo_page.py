"""Writes docs/zoo.md and the drawings beside it: every spec, what it means, who says so, and its mask.

python tests/zoo_page.py
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from zoo_samples import Sample, sample_of  # noqa: E402

from attngen.commands.mask import Picture, sample  # noqa: E402
from attngen.ir.build import build  # noqa: E402
from attngen.ir.nodes import TRUE, AttentionIR  # noqa: E402
from attngen.ir.printer import print_expr  # noqa: E402
from attngen.source import Source  # noqa: E402
from attngen.spec_file import find_spec, zoo_names  # noqa: E402
from attngen.syntax.parse import parse  # noqa: E402

PAGE = ROOT / "docs" / "zoo.md"
DRAWINGS = ROOT / "docs" / "zoo"
FEW = 128  # queries, where a spec is about few of them
TILE = (32, 32)

FAMILIES: Mapping[str, tuple[str, ...]] = {
    family: tuple(names.split())
    for family, names in {
        "Plain, capped, dropped": """
            full causal softcap grok1 dropped gpt_oss cosine_temperature scalable_softmax
            llama4_global checkerboard token_merging
        """,
        "Windows and fixed sparse patterns": """
            sliding_window gemma2_local gemma3 head_windows duo_attention streaming_llm chunked
            dilated_window longformer bigbird strided_sparse fixed_sparse logsparse longnet phi3_small
        """,
        "Documents, prefixes, padding": """
            packed_documents alibi_documents modernbert_local packed_prefix prefix_lm shared_prefix
            parallel_contexts batchify key_padding left_padded transfusion permutation_lm
        """,
        "Images, video, speech": """
            neighbourhood_2d natten_2d natten_tiled natten_morton sta_2d sta_3d svg_spatial
            svg_temporal criss_cross swin_window_bias navit scale_causal block_causal streaming_asr
        """,
        "Decoding, diffusion, retrieval": """
            decode_offset tree_speculation tree_intervals block_diffusion flamingo retro striped_ring
        """,
        "Blocks and keys chosen at run time": """
            block_sparse moba vertical_slash
        """,
        "Biases, fixed and learned": """
            alibi sandwich kerple_log kerple_power fox t5 t5_decoder relative_table head_gate
            dense_bias graphormer_spatial graphormer_edge
        """,
        "Products of rows": """
            mla_rope tupe low_rank_bias
        """,
        "Weights other than a softmax's": """
            sigmoid_attention relu_attention clipped_softmax gated_attention
        """,
    }.items()
}
OTHERS = "Others"

_HEAD = f"""# The zoo

Ready specs, each from a paper or from code that people run: `attngen zoo` lists them, `attngen zoo NAME`
prints one, and every command takes the name in place of a file. Consts are the paper's own where it names
them; `--set NAME=VALUE` gives others, as it does for some drawings, so that the pattern fits into them.

The drawings show one head's mask over 512 queries (downwards; {FEW} where the spec is about few of them) and
512 keys, and what the loops over keys, in forward and dQ, make of its tiles of {TILE[0]} x {TILE[1]}, as
`attngen mask` draws them:

| colour | tile | |
|---|---|---|
| green | FULL | visited, and no mask is evaluated |
| orange | PARTIAL | visited and masked: kept scores are dark, the others light |
| grey | EMPTY | not visited |

How many tiles are visited, beside how many must be: [ranges.md](ranges.md). `python tests/zoo_page.py` writes
this page.
"""


def page() -> str:
    """The page's text; the drawings are named and not looked at."""
    parts = [_HEAD]
    for family, names in families():
        parts.append(f"## {family}\n")
        parts += [_entry(name) for name in names]
    return "\n".join(parts)


def families() -> Iterator[tuple[str, tuple[str, ...]]]:
    yield from FAMILIES.items()
    listed = {name for names in FAMILIES.values() for name in names}
    if others := tuple(name for name in zoo_names() if name not in listed):
        yield OTHERS, others


def _entry(name: str) -> str:
    source = find_spec(name)
    ir = built(source)
    meaning, _, cited = ir.doc.strip().partition("\n")
    body = source.text.partition(f"\nvariant {name}\n")[2].strip()
    parts = [f"### {name}\n", f"{meaning}\n"]
    if is_masked(ir):
        used = _settings(sample_of(name), ir)
        parts.append(f'<img src="zoo/{name}.png" width="256" alt="the mask of {name}">\n')
        if used:
            parts.append(f"Drawn with {used}.\n")
    parts.append(f"{' '.join(cited.split())}\n")
    if body:
        parts.append(f"```\n{body}\n```\n")
    return "\n".join(parts)


def built(source: Source) -> AttentionIR:
    return build(parse(source), source)


def is_masked(ir: AttentionIR) -> bool:
    return ir.mask is not TRUE and print_expr(ir.mask) != "True"


def _settings(one: Sample, ir: AttentionIR) -> str:
    consts = dict(ir.consts)
    given = {n: v for n, v in one.small.items() if consts.get(n) != v} | dict(one.params)
    return ", ".join(f"`{name} = {value}`" for name, value in given.items())


def drawn(name: str) -> Picture:
    """The picture of one spec's sample."""
    one = sample_of(name)
    k_len = one.length
    q_len = FEW if one.few_queries else k_len
    given = {**one.small, **one.params}
    return sample(find_spec(name), q_len, k_len, given, tile=TILE, tensors=one.inputs(q_len, k_len))


def draw(picture: Picture, path: Path) -> None:
    """A PNG with a pixel to each score."""
    from PIL import Image

    from attngen.commands.mask_drawing import COLOURS, shades

    shade = shades(picture).byte()
    rows, columns = picture.tile
    shade[::rows, :] = shade[:, ::columns] = len(COLOURS)  # lines between tiles
    image = Image.fromarray(shade.numpy(), mode="P")
    colours = [*COLOURS, "#ffffff"]
    image.putpalette([int(c[at : at + 2], 16) for c in colours for at in (1, 3, 5)])
    image.save(path, optimize=True, bits=3)


def main() -> None:
    DRAWINGS.mkdir(exist_ok=True)
    for name in zoo_names():
        path = DRAWINGS / f"{name}.png"
        if is_masked(built(find_spec(name))):
            draw(drawn(name), path)
        elif path.exists():
            path.unlink()
    PAGE.write_text(page(), "utf-8")


if __name__ == "__main__":
    main()
