"""The edges people meet, on the GPU: inductor, CUDA graphs, opcheck, autocast, far offsets."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from gpu_calls import Tensors, alike, keywords, relative, run, tensors
from torch import Tensor
from torch.utils.checkpoint import checkpoint

import attngen
from attngen.testing.reach import small_tiles
from attngen.variant import Variant

LEARNED = "input table: float32[heads, 8] grad\nscore = score + table[h, clamp(dist, 0, 7)]\nmask = causal"


def learned() -> Variant:
    return attngen.compile(f"variant learned_edge\n{LEARNED}")


def variant_of(name: str) -> Variant:
    return learned() if name == "learned" else attngen.load(name)


def named_of(variant: Variant, x: Tensors) -> dict[str, Any]:
    """The keywords of a call; learned inputs require their gradients."""
    named = keywords(variant, x)
    for i in variant.ir.inputs:
        if i.grad:
            named[i.name].requires_grad_()
    return named


def leaves_of(x: Tensors, named: dict[str, Any]) -> list[Tensor]:
    return [x.q, x.k, x.v, *(t for t in named.values() if isinstance(t, Tensor) and t.requires_grad)]


NAMES = ["causal", "learned", "gpt_oss", "dropped"]


@pytest.mark.parametrize("name", NAMES)
def test_inductor_makes_one_graph_of_five_lengths(name: str) -> None:
    from torch._dynamo.utils import counters

    variant = variant_of(name)

    def layer(q: Tensor, k: Tensor, v: Tensor, **named: Any) -> Tensor:
        out = variant(q * 2.0, k, v, **named)
        assert isinstance(out, Tensor)
        return out + 1.0

    torch.compiler.reset()
    counters.clear()
    compiled = torch.compile(layer, fullgraph=True, dynamic=True)
    for length in (65, 130, 257, 33, 1000):
        x = tensors(q_len=length)
        named = named_of(variant, x)
        results = []
        for f in (layer, compiled):
            out = f(x.q, x.k, x.v, **named)
            results.append((out, *torch.autograd.grad(out, leaves_of(x, named), x.d_out)))
        for got, want in zip(*results, strict=True):
            assert relative(got, want) < 1e-2
    assert counters["stats"]["unique_graphs"] == 1


@pytest.mark.parametrize("bshd", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_opcheck_finds_no_fault_forward_and_backward(name: str, bshd: bool) -> None:
    variant, x = variant_of(name), tensors(q_len=70)
    module: Any = variant.module
    named = keywords(variant, x)
    q, k, v = (t.detach() for t in (x.q, x.k, x.v))
    if bshd:
        q, k, v = (t.transpose(1, 2).contiguous().transpose(1, 2) for t in (q, k, v))
    inputs = [named[i.name].detach() for i in variant.ir.inputs]
    seed = [torch.tensor([7], device="cuda")] if variant.ir.dropout is not None else []
    params = [named.get(p.name, p.default) for p in variant.ir.params]
    flag = [True] if hasattr(module, "takes_hopper") else []  # deterministic
    arguments = (q, k, v, *inputs, *seed, *params, *flag)
    results = [t.detach() for t in module.forward_operator(*arguments)]
    has_learned = any(i.grad for i in variant.ir.inputs)
    for needs in itertools.product((True, False), repeat=3 if has_learned else 2):
        more = (*arguments, *results, torch.randn_like(results[0]), torch.randn_like(results[1]), *needs)
        torch.library.opcheck(module.backward_operator, more)
    for t in (q, k, v, *(t for t, i in zip(inputs, variant.ir.inputs, strict=True) if i.grad)):
        t.requires_grad_()
    torch.library.opcheck(module.forward_operator, arguments)


@pytest.mark.parametrize("name", NAMES)
def test_a_second_backward_raises(name: str) -> None:
    variant, x = variant_of(name), tensors()
    out = variant(x.q, x.k, x.v, **keywords(variant, x))
    assert isinstance(out, Tensor)
    first = torch.autograd.grad(out.sum(), x.q, create_graph=True)[0]
    with pytest.raises(NotImplementedError, match=r"second backward.*variant\.reference"):
        torch.autograd.grad(first.sum(), x.k)


@pytest.mark.parametrize("name", NAMES)
def test_any_subset_of_the_gradients_is_the_same_to_the_bit(name: str) -> None:
    variant, x = variant_of(name), tensors(q_len=200)
    named = named_of(variant, x)
    given = {"q": x.q, "k": x.k, "v": x.v, **named}
    names = [n for n, t in given.items() if isinstance(t, Tensor) and t.requires_grad]

    def gradients(wanted: tuple[str, ...]) -> dict[str, Tensor]:
        own = {n: t.detach().requires_grad_(n in wanted) if n in names else t for n, t in given.items()}
        out = variant(**own, deterministic=True)
        assert isinstance(out, Tensor)
        return dict(zip(wanted, torch.autograd.grad(out, [own[n] for n in wanted], x.d_out), strict=True))

    full = gradients(tuple(names))
    for count in range(1, len(names)):
        for wanted in itertools.combinations(names, count):
            assert all(torch.equal(grad, full[n]) for n, grad in gradients(wanted).items()), wanted


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", NAMES)
def test_autocast_computes_in_its_dtype(name: str, dtype: torch.dtype) -> None:
    variant, x = variant_of(name), tensors(dtype=torch.float32, q_len=130)
    named = named_of(variant, x)
    leaves = leaves_of(x, named)
    with torch.autocast("cuda", dtype=dtype):
        out = variant(x.q, x.k, x.v, **named)
    assert isinstance(out, Tensor) and out.dtype == dtype
    grads = torch.autograd.grad(out, leaves, x.d_out.to(dtype))
    assert all(g.dtype == t.dtype for g, t in zip(grads, leaves, strict=True))
    cast = [t.detach().to(dtype).requires_grad_() for t in (x.q, x.k, x.v)]
    want = variant(*cast, **named)
    assert isinstance(want, Tensor) and torch.equal(out, want)
    want_grads = torch.autograd.grad(want, [*cast, *leaves[3:]], x.d_out.to(dtype))
    assert alike(grads, want_grads)


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("seed", [None, 12])
def test_checkpointing_changes_no_bit_of_dropout(reentrant: bool, seed: int | None) -> None:
    variant, x = attngen.load("dropped"), tensors(q_len=300)

    def layer(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out = variant(q, k, v, p=0.5, seed=seed, deterministic=True)
        assert isinstance(out, Tensor)
        return out

    results = []
    for replayed in (False, True):
        leaves = [t.detach().requires_grad_() for t in (x.q, x.k, x.v)]
        torch.manual_seed(8)
        out = checkpoint(layer, *leaves, use_reentrant=reentrant) if replayed else layer(*leaves)
        torch.rand(3, device="cuda")
        out.backward(x.d_out)
        results.append((out, *(t.grad for t in leaves)))
    assert all(torch.equal(one, two) for one, two in zip(*results, strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_a_captured_graph_replays_forward_and_backward_with_new_contents(name: str) -> None:
    variant, x = variant_of(name), tensors(q_len=200)
    named = named_of(variant, x)
    leaves = leaves_of(x, named)

    def step() -> tuple[Tensor, ...]:
        out, lse = variant(x.q, x.k, x.v, **named, return_lse=True)
        return (out, lse, *torch.autograd.grad(out, leaves, x.d_out))

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):  # compiles, and fills the allocator
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    for seed in (1, 2):
        new = tensors(q_len=200, seed=seed)
        with torch.no_grad():
            for t, fresh in zip((x.q, x.k, x.v, x.d_out), (new.q, new.k, new.v, new.d_out), strict=True):
                t.copy_(fresh)
        graph.replay()
        torch.cuda.synchronize()
        found = [t.detach().clone() for t in captured]
        want = step()
        assert torch.equal(found[0], want[0]) and alike(found, want)


def many_tiles(seed: int) -> Tensors:
    """More tiles of queries than the card takes at once, so that programs take several."""
    return tensors(batch=2, heads=48, kv_heads=4, q_len=420, k_len=650, head_dim=128, seed=seed)


@pytest.mark.parametrize("name", ["causal", "packed_documents"])
def test_where_programs_take_several_tiles_a_graph_replays_and_streams_run_beside_each_other(
    name: str,
) -> None:
    variant, x, y = attngen.load(name), many_tiles(0), many_tiles(1)
    named = keywords(variant, x)
    with torch.no_grad(), small_tiles(variant):  # the forward for sm_90, however short the call
        want = [variant(z.q, z.k, z.v, **named) for z in (x, y)]
        assert all(isinstance(out, Tensor) for out in want)
        streams = [torch.cuda.Stream() for _ in range(2)]
        for stream in streams:
            stream.wait_stream(torch.cuda.current_stream())
        found: list[list[Tensor]] = [[], []]
        for _ in range(5):
            for z, stream, outs in zip((x, y), streams, found, strict=True):
                with torch.cuda.stream(stream):
                    outs.append(variant(z.q, z.k, z.v, **named))
        torch.cuda.synchronize()
        for outs, expected in zip(found, want, strict=True):
            assert all(torch.equal(out, expected) for out in outs)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            out = variant(x.q, x.k, x.v, **named)
        first = many_tiles(0)
        for source, expected in ((y, want[1]), (first, want[0]), (y, want[1])):
            for t, fresh in zip((x.q, x.k, x.v), (source.q, source.k, source.v), strict=True):
                t.copy_(fresh)
            graph.replay()
            torch.cuda.synchronize()
            assert torch.equal(out, expected)


def test_a_captured_graph_draws_other_dropout_at_each_replay() -> None:
    variant, x = attngen.load("dropped"), tensors(q_len=200)
    q, k, v = (t.detach() for t in (x.q, x.k, x.v))
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        variant(q, k, v, p=0.5)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = variant(q, k, v, p=0.5)
    assert isinstance(out, Tensor)
    results = []
    for _ in range(2):
        graph.replay()
        torch.cuda.synchronize()
        results.append(out.clone())
    assert not torch.equal(*results)


def test_forward_and_backward_run_on_a_stream_of_ones_own() -> None:
    variant, x = learned(), tensors(q_len=1000)
    named = named_of(variant, x)
    leaves = leaves_of(x, named)

    def step() -> tuple[Tensor, ...]:
        out = variant(x.q, x.k, x.v, **named)
        assert isinstance(out, Tensor)
        return (out, *torch.autograd.grad(out, leaves, x.d_out))

    want = step()
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        torch.cuda._sleep(10**7)  # so that a launch on another stream would be early
        q = x.q.detach() * 1.0
        out = variant(q, x.k, x.v, **named)
        got = step()
    torch.cuda.synchronize()
    assert isinstance(out, Tensor) and torch.equal(out, want[0])
    assert torch.equal(got[0], want[0]) and alike(got, want)


def far(x: Tensor, apart: int) -> Tensor:
    """The same values, with heads ``apart`` elements from one another."""
    room = torch.empty(apart * (x.shape[1] - 1) + x[0, 0].numel(), dtype=x.dtype, device="cuda")
    return room.as_strided(x.shape, (0, apart, x.shape[3], 1)).copy_(x.detach())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("apart", [2**31 + 64, 2**31 + 3])
def test_offsets_beyond_two_to_the_31_elements_change_no_result(apart: int, dtype: torch.dtype) -> None:
    """Aligned for the tensor memory accelerator, and not."""
    variant = attngen.load("causal")
    x = tensors(batch=1, heads=2, kv_heads=2, q_len=70, dtype=dtype)
    if torch.cuda.mem_get_info()[0] < 5 * apart * x.q.element_size():
        pytest.skip("needs 5 tensors of 2**31 elements")
    want = run(variant, x)
    q, k, v, d_out = (far(t, apart) for t in (x.q, x.k, x.v, x.d_out))
    got = run(variant, Tensors(*(t.requires_grad_() for t in (q, k, v)), d_out))
    for name in want:
        assert relative(got[name], want[name]) < 1e-2, name


@pytest.mark.parametrize("axis", range(4))
def test_inputs_whose_offsets_pass_two_to_the_31_elements_are_read_right(axis: int) -> None:
    variant = attngen.compile(
        "variant far_bias\ninput bias: float16[batch, heads, q_len, k_len]\nscore = score + bias[b, h, q, k]"
    )
    x = tensors(q_len=3, k_len=4)
    shape = (2, 4, 3, 4)
    near = torch.randn(shape, device="cuda", dtype=torch.float16)
    strides = list(near.stride())
    strides[axis] = 2**31 // (shape[axis] - 1) + 64
    size = sum((n - 1) * s for n, s in zip(shape, strides, strict=True)) + 1
    room = torch.empty(size, dtype=torch.float16, device="cuda")
    distant = room.as_strided(shape, strides).copy_(near)
    out, want = (variant(x.q, x.k, x.v, bias=b) for b in (distant, near))
    assert isinstance(out, Tensor) and isinstance(want, Tensor)
    assert torch.equal(out, want)


def test_more_than_65535_heads_have_their_gradients_and_those_of_learned_inputs() -> None:
    variant = learned()
    x = tensors(batch=17_000, heads=4, kv_heads=2, q_len=3, head_dim=16)
    table = torch.randn(4, 8, device="cuda").requires_grad_()
    out = variant(x.q, x.k, x.v, table=table)
    assert isinstance(out, Tensor)
    grads = torch.autograd.grad(out, (x.q, x.k, x.v, table), x.d_out)
    wide = [t.detach().double().requires_grad_() for t in (x.q, x.k, x.v, table)]
    want = variant.reference(*wide[:3], table=wide[3])
    assert isinstance(want, Tensor)
    want_grads = torch.autograd.grad(want, wide, x.d_out.double())
    for got, right in zip((out, *grads), (want, *want_grads), strict=True):
        assert relative(got, right) < 1e-2


@pytest.mark.parametrize("kind", ["sum", "transposed", "columns", "sliced", "expanded"])
def test_any_gradient_of_the_output_gives_what_its_copy_gives(kind: str) -> None:
    variant, x = learned(), tensors(q_len=130)
    named = named_of(variant, x)
    d = x.d_out
    laid = {
        "sum": torch.ones((), device="cuda", dtype=d.dtype).expand_as(d),
        "transposed": d.transpose(1, 2).contiguous().transpose(1, 2),
        "columns": d.mT.contiguous().mT,
        "sliced": torch.cat([d, d], 3)[..., 3 : 3 + d.shape[3]],
        "expanded": d[:, :, :1].expand_as(d),
    }[kind]
    out = variant(x.q, x.k, x.v, **named)
    leaves = leaves_of(x, named)
    got = torch.autograd.grad(out, leaves, laid, retain_graph=True)
    want = torch.autograd.grad(out, leaves, laid.contiguous())
    assert all(relative(one, two) < 1e-3 for one, two in zip(got, want, strict=True))


def test_values_by_columns_beside_keys_that_are_aligned_to_nothing() -> None:
    """The dQ kernel of this call addressed memory out of range, as Triton 3.6 made it."""
    variant = attngen.load("graphormer_edge")
    x = tensors(q_len=183, k_len=238, heads=2, kv_heads=1, head_dim=128)
    q = x.q[:1].detach().expand(2, -1, -1, -1)
    k = torch.empty(x.k.numel() + 1, device="cuda", dtype=x.k.dtype)[1:].view(x.k.shape).copy_(x.k.detach())
    v = x.v.detach().transpose(2, 3).contiguous().transpose(2, 3)
    want = run(variant, Tensors(*(t.contiguous().requires_grad_() for t in (q, k, v)), x.d_out))
    got = run(variant, Tensors(*(t.requires_grad_() for t in (q, k, v)), x.d_out))
    assert all(relative(got[name], want[name]) < 4e-3 for name in want)
