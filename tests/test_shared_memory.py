"""No spec asks a listed GPU for more shared memory than it has; and the formula that says so is a bound."""

from __future__ import annotations

from functools import cache

import pytest

from attngen.compile_check import check
from attngen.compile_check.binary import compile_launch
from attngen.compile_check.launches import launches
from attngen.compile_check.module import load
from attngen.pipeline import Compilation, compile_spec, plan_spec
from attngen.plan.cost_class import reads_by_score
from attngen.plan.plan import Options, Plan
from attngen.plan.shared_memory import gluon_bytes, shrunk, triton_bytes
from attngen.plan.table import KERNELS, shipped
from attngen.plan.tile import HopperTile, Tile
from attngen.plan.tiles import TARGETS, limits_of, row_target
from attngen.spec_file import find_spec, zoo_names

# The launcher asks a tensor's address for its alignment only; a FakeTensor's is 0.
pytestmark = pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")

_RANK = 64  # columns of a product's rows, as padded


@cache
def planned(name: str) -> Plan:
    return plan_spec(find_spec(name), Options("triton"))


@cache
def compiled(name: str) -> Compilation:
    return compile_spec(find_spec(name), backend="triton")


@pytest.mark.parametrize("name", zoo_names())
def test_no_zoo_spec_asks_for_more_shared_memory_than_a_listed_gpu_has(name: str) -> None:
    """By the formula; where it is too loose for what no score is read by, tiles are sized by compiling."""
    plan = planned(name)
    reads, wide = reads_by_score(plan.ir, plan.logits), _RANK * len(plan.products)
    for row in ("sm_90", "sm_100", "sm_80", "gfx942", *(("small", "float32") if reads else ())):
        item = 4 if row == "float32" else 2
        for limit, tiles in plan.tiles[row].items():
            for kernel, tile in zip(KERNELS, tiles, strict=True):
                for head_dim in (d for d in (64, 128, 256) if d + wide <= limit):
                    for way, most in limits_of(row):
                        need = triton_bytes(way, kernel, tile, head_dim, item, reads, wide)
                        assert need <= most, (row, kernel, head_dim, tile)


def test_a_variant_of_many_reads_has_smaller_tiles_and_others_have_the_tables() -> None:
    usual, many = (
        planned("relative_table").tiles["sm_90"],
        planned("graphormer_edge").tiles["sm_90"],
    )
    assert usual[128] == (Tile(64, 32, 4, 3), Tile(64, 64, 4, 2), Tile(64, 64, 4, 2))
    assert all(
        m.block_m * m.block_n * m.stages < u.block_m * u.block_n * u.stages
        for m, u in zip(many[128], usual[128], strict=True)
    )


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_tile_is_made_smaller_until_it_fits(kernel: str) -> None:
    tile = Tile(128, 64, 8, 4)
    assert shrunk(kernel, tile, lambda t: True) == tile
    assert shrunk(kernel, tile, lambda t: t.stages == 2) == Tile(128, 64, 8, 2)
    assert shrunk(kernel, tile, lambda t: False) == Tile(16, 16, 8, 1)
    streamed = shrunk(kernel, tile, lambda t: t.block_m * t.block_n <= 4096)
    assert streamed == (Tile(64, 64, 8, 2) if kernel == "dkdv" else Tile(128, 32, 8, 2))


def test_no_tile_of_gluons_asks_for_more_than_a_multiprocessor_has() -> None:
    rows = [(row.head_dim, row.tile) for row in shipped().rows if isinstance(row.tile, HopperTile)]
    assert rows
    for head_dim, tile in rows:
        assert gluon_bytes(tile, head_dim) <= TARGETS["sm_90"].shared


def test_a_tile_twice_as_large_needs_more() -> None:
    tile = Tile(64, 64, 4, 2)
    for target in ("sm_80", "sm_90", "sm_100", "gfx942"):
        for kernel in KERNELS:
            least = triton_bytes(target, kernel, tile, 64)
            assert least < triton_bytes(target, kernel, Tile(128, 128, 4, 2), 64)
            assert least < triton_bytes(target, kernel, tile, 128)
            assert least < triton_bytes(target, kernel, tile, 64, item=4)


@pytest.mark.compiled
@pytest.mark.parametrize(
    ("name", "target", "head_dim"),
    [
        ("causal", "sm_90", 64),
        pytest.param("packed_documents", "sm_90", 128, marks=pytest.mark.slow),
        pytest.param("relative_table", "sm_90", 256, marks=pytest.mark.slow),
        pytest.param("dense_bias", "sm_90", 64, marks=pytest.mark.slow),
        pytest.param("low_rank_bias", "sm_90", 128, marks=pytest.mark.slow),
        pytest.param("relative_table", "sm_100", 128, marks=pytest.mark.slow),
        pytest.param("dropped", "sm_100", 64, marks=pytest.mark.slow),
        pytest.param("causal", "sm_80", 256, marks=pytest.mark.slow),
        pytest.param("t5", "sm_86", 128, marks=pytest.mark.slow),
        pytest.param("dense_bias", "sm_86", 64, marks=pytest.mark.slow),
        pytest.param("graphormer_edge", "sm_90", 128, marks=pytest.mark.slow),
        pytest.param("causal", "gfx942", 256, marks=pytest.mark.slow),
    ],
)
def test_triton_allocates_no_more_than_the_formula_says(name: str, target: str, head_dim: int) -> None:
    found, gpu = compiled(name), TARGETS[target]
    plan = found.plan
    reads, wide = reads_by_score(plan.ir, plan.logits), _RANK * len(plan.products)
    row = row_target(gpu.capability)
    tiles = next(t for limit, t in plan.tiles[row].items() if head_dim + wide <= limit)
    kernels = {f"{kernel}_kernel": (kernel, tile) for kernel, tile in zip(KERNELS, tiles, strict=True)}
    made = launches(load(found.text), found.ir, gpu, head_dim, "bfloat16")
    assert kernels.keys() <= {launch.kernel.__name__ for launch in made}
    for launch in (x for x in made if x.kernel.__name__ in kernels):
        kernel, tile = kernels[launch.kernel.__name__]
        allocated = compile_launch(launch, gpu).shared
        need = triton_bytes(row, kernel, tile, head_dim, 2, reads, wide)
        assert allocated <= min(need, gpu.shared), kernel


@pytest.mark.compiled
@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", ["causal", "dropped", "mla_rope", "t5"])
def test_a_compiled_spec_keeps_within_every_listed_gpus_shared_memory(name: str, target: str) -> None:
    for row in check(compiled(name), [target], [64, 128, 256], ["bfloat16", "float32"]):
        assert row.shared is not None, row.note
        assert row.shared <= TARGETS[target].shared, row
