"""Counts what Triton compiles when lengths and params change: nothing, after the first call.

    python benchmarks/compiles.py [--specs softcap,dropped] [-o DIR]

Calls each variant forward and backward at lengths 100, 1, 128, 129 and with other params.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from attngen.bench.compiles import compiles_over_lengths
from attngen.bench.machine import machine, one_line
from attngen.bench.table import columns
from attngen.spec_file import find_spec, zoo_names
from attngen.variant import build_variant


def main() -> int:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--specs", default="full,causal,softcap,dropped,prefix_lm,packed_documents")
    parser.add_argument("--all", action="store_true", help="the whole zoo")
    parser.add_argument("--head-dims", default="64,80")
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float16", "float32"])
    parser.add_argument("-o", "--output", type=Path, help="folder for compiles.json and compiles.md")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("torch sees no CUDA device")

    cells, record, extra = [["variant", "head dim", "first call", "later calls"]], [], 0
    for name in zoo_names() if options.all else options.specs.split(","):
        for head_dim in map(int, options.head_dims.split(",")):
            variant = build_variant(find_spec(name), overrides={})
            dtype = getattr(torch, options.dtype)
            first, *later = compiles_over_lengths(variant, head_dim=head_dim, dtype=dtype)
            again = {step.call: step.added for step in later if step.added}
            extra += len(again)
            shown = "; ".join(f"{call}: {added}" for call, added in again.items()) or "nothing new"
            cells.append([name, str(head_dim), f"{sum(first.added.values())} kernels", shown])
            record.append({"variant": name, "head_dim": head_dim, "first": first.added, "later": again})
    text = f"{one_line(machine())}; {options.dtype}\n\n{columns(cells, left=4)}\n"
    print(text)
    if options.output:
        options.output.mkdir(parents=True, exist_ok=True)
        whole = {"machine": machine(), "dtype": options.dtype, "results": record}
        (options.output / "compiles.json").write_text(json.dumps(whole, indent=1) + "\n")
        (options.output / "compiles.md").write_text(text)
    return 1 if extra else 0


if __name__ == "__main__":
    sys.exit(main())
