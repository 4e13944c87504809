"""Training steps of a GPT of about 1.3 billion parameters, end to end, as in FlashAttention-2's paper.

    python benchmarks/train_gpt.py --lengths 2048,8192 --rows causal,softcap --peers attngen,cudnn,flex

24 layers of 16 heads of 128, bfloat16 weights and AdamW states, batches of --tokens random tokens. One model
of each kind after the other takes a few steps, each step synchronised: tokens a second are from the median.
Model FLOPs are the paper's (section 4.2, after Megatron-LM): a token takes 6 FLOP a parameter and
12 * layers * width * length for attention, causal or not; utilisation is over --peak.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "demo"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from model import CharGPT, Size
from torch import Tensor
from torch.nn import functional

from attngen.bench.machine import machine, one_line
from attngen.bench.measure import short
from attngen.bench.peers import PEERS, make_case
from attngen.bench.rows import ROWS, Shape
from attngen.bench.table import columns

VOCABULARY = 50304
LAYERS, HEADS, HEAD_DIM = 24, 16, 128
GIGA = 2**30


def attention(row: str, peer: str, batch: int, length: int, device: torch.device) -> Callable[..., Tensor]:
    """The peer's attention for one row at this shape: (q, k, v) to out."""
    shape = Shape("train", batch, HEADS, length, HEAD_DIM)
    return PEERS[peer].prepare(make_case(ROWS[row], shape, torch.bfloat16, device))


def steps_of(
    attend: Callable[..., Tensor], size: Size, warm: int, count: int, device: torch.device
) -> tuple[list[float], float, float, int]:
    """Seconds of each step, the last loss, peak memory in GiB, and the model's parameters."""
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    try:
        with device:
            model = CharGPT(size, VOCABULARY, [attend])
    finally:
        torch.set_default_dtype(torch.float32)
    parameters = sum(p.numel() for p in model.parameters())
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=device.type == "cuda")
    torch.cuda.reset_peak_memory_stats()
    seconds, loss = [], torch.zeros(())
    for _ in range(warm + count):
        rows = torch.randint(VOCABULARY, (size.batch, size.length + 1), device=device)
        torch.cuda.synchronize()
        began = time.perf_counter()
        loss = functional.cross_entropy(model(rows[:, :-1]).flatten(0, 1), rows[:, 1:].flatten())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    return seconds[warm:], loss.item(), torch.cuda.max_memory_allocated() / GIGA, parameters


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--lengths", default="2048,8192")
    parser.add_argument("--rows", default="causal,softcap")
    parser.add_argument("--peers", default="attngen,cudnn,flex")
    parser.add_argument("--tokens", type=int, default=16384, help="of a batch")
    parser.add_argument("--layers", type=int, default=LAYERS)
    parser.add_argument("--warm", type=int, default=3, help="steps before the clock runs")
    parser.add_argument("--steps", type=int, default=7)
    parser.add_argument("--peak", type=float, default=989.0, help="of the GPU in bfloat16, TFLOP/s")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("torch sees no CUDA device")

    device = torch.device("cuda")
    print(one_line(machine()), flush=True)
    cells = [["length", "row", "peer", "tokens/s", "MFU", "GiB", "loss"]]
    for length in map(int, options.lengths.split(",")):
        size = Size(options.layers, HEADS, HEADS, HEAD_DIM, length, options.tokens // length, 0, 0.0)
        for row in options.rows.split(","):
            for peer in options.peers.split(","):
                reason = PEERS[peer].refuses(ROWS[row])
                if reason:
                    print(f"{length} {row} {peer}: {reason}", flush=True)
                    continue
                try:
                    attend = attention(row, peer, size.batch, length, device)
                    seconds, loss, memory, parameters = steps_of(
                        attend, size, options.warm, options.steps, device
                    )
                except Exception as error:  # a peer's failure is a result
                    print(f"{length} {row} {peer}: {short(error)}", flush=True)
                    continue
                speed = size.batch * length / statistics.median(seconds)
                flop = 6 * parameters + 12 * options.layers * size.width * length
                used = speed * flop / (options.peak * 1e12)
                cells.append(
                    [f"{length}", row, peer, f"{speed:,.0f}", f"{used:.1%}", f"{memory:.1f}", f"{loss:.3f}"]
                )
                print(*cells[-1], f"{parameters / 1e9:.2f}B", flush=True)
                gc.collect()
                torch.cuda.empty_cache()
    print("\n" + columns(cells, left=3))


if __name__ == "__main__":
    main()
