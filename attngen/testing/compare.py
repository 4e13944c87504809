"""``assert_matches_reference``: one call of a variant, forward and backward, judged against the oracle."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from attngen import reference
from attngen.analysis.homogeneous import degree_of
from attngen.ir.nodes import AttentionIR
from attngen.ir.types import Scalar
from attngen.testing.criteria import Verdict, amplifies, compare, compare_lse, compare_zero, has_tanh
from attngen.testing.reach import has_small_tiles
from attngen.testing.tensor import Recipe, recipe_of

_DRAWS = 4  # of random signs, for what rounding may do


class Variant(Protocol):
    """What is needed of a variant: its IR, its name, and the call."""

    @property
    def name(self) -> str: ...
    @property
    def ir(self) -> AttentionIR: ...
    def __call__(self, /, q: Tensor, k: Tensor, v: Tensor, **keywords: Any) -> Any: ...


def assert_matches_reference(
    variant: Variant,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    seed: int | None = None,
    dout: Tensor | None = None,
    dlse: Tensor | None = None,
    layout: str = "bhsd",
    **inputs_and_params: Tensor | Scalar,
) -> list[Verdict]:
    """Run ``variant`` forward and backward (through out and lse) and judge it by ``testing.criteria``.

    q (B,H,Sq,D), k (B,Hkv,Sk,D), v (B,Hkv,Sk,Dv), or with H and S swapped for ``layout="bshd"``.
    ``dout`` (like out) and ``dlse`` (B,H,Sq) are the cotangents, drawn where not given. ``seed`` is for
    dropout, 0 where not given: the reference draws the same bits. Returns a verdict for each tensor;
    raises AssertionError with the table, the worst element and a script that reproduces it.
    """
    ir = variant.ir
    inputs = {n: t for n, t in inputs_and_params.items() if isinstance(t, Tensor)}
    params = {n: p for n, p in inputs_and_params.items() if not isinstance(p, Tensor)}
    if seed is None:
        seed = 0
    out_shape = (*q.shape[:3], v.shape[-1])
    if dout is None:
        dout = Recipe(out_shape, str(q.dtype).removeprefix("torch."), seed=2026).build(q.device)
    if dlse is None:
        dlse = Recipe(tuple(reference.heads_first(q, layout).shape[:3]), seed=2027).build(q.device)

    call = _Call(ir, q, k, v, dout, dlse, inputs, params, seed, layout)
    complaint, got = call.of_variant(variant)
    verdicts = [] if complaint else call.judge(got)
    if complaint or not all(verdict.passed for verdict in verdicts):
        raise AssertionError(call.report(variant, complaint, verdicts))
    return verdicts


@dataclass(frozen=True)
class _Call:
    ir: AttentionIR
    q: Tensor
    k: Tensor
    v: Tensor
    dout: Tensor
    dlse: Tensor
    inputs: Mapping[str, Tensor]
    params: Mapping[str, Scalar]
    seed: int
    layout: str

    @property
    def learned(self) -> list[str]:
        return [i.name for i in self.ir.inputs if i.grad]

    def _gradients(
        self, out: Tensor, lse: Tensor | None, leaves: Mapping[str, Tensor], *, again: bool = False
    ) -> dict[str, Tensor]:
        """Results and gradients, with ``again`` to be differentiated once more."""
        cotangents = [(out, self.dout.to(out.dtype))]
        if lse is not None:
            cotangents.append((lse, self.dlse.to(lse.dtype)))
        # The log-sum-exp of a score that reads neither q nor k is a constant.
        outputs, weights = zip(*(pair for pair in cotangents if pair[0].requires_grad), strict=True)
        grads = torch.autograd.grad(
            outputs, list(leaves.values()), weights, allow_unused=True, create_graph=again
        )
        filled = (
            torch.zeros_like(t) if g is None else g for g, t in zip(grads, leaves.values(), strict=True)
        )
        forward = {"out": out} if lse is None else {"out": out, "lse": lse}
        return {**forward, **dict(zip((f"d{n}" for n in leaves), filled, strict=True))}

    def of_variant(self, variant: Variant) -> tuple[str, dict[str, Tensor]]:
        """What is wrong with the results apart from their values, or nothing; and the results."""
        leaves, inputs = self._leaves(None)
        more = {"seed": self.seed} if self.ir.dropout is not None else {}
        given = variant(
            leaves["q"],
            leaves["k"],
            leaves["v"],
            return_lse=self.ir.is_softmax,
            layout=self.layout,
            **inputs,
            **self.params,
            **more,
        )
        out, lse = given if self.ir.is_softmax else (given, None)
        forward = {"out": out} if lse is None else {"out": out, "lse": lse}
        if complaint := self._misfit(forward):
            return complaint, forward
        if constant := [name for name, t in forward.items() if not t.requires_grad]:
            return f"{constant[0]} is not differentiable", forward
        got = self._gradients(out, lse, leaves)
        return self._misfit(got), got

    def _leaves(self, dtype: torch.dtype | None) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Fresh leaves with the given strides (or widened to ``dtype``), and all inputs, those among them."""

        def leaf(tensor: Tensor) -> Tensor:
            return (tensor.detach() if dtype is None else tensor.detach().to(dtype)).requires_grad_()

        leaves = {"q": leaf(self.q), "k": leaf(self.k), "v": leaf(self.v)}
        leaves |= {n: leaf(self.inputs[n]) for n in self.learned}
        return leaves, {n: leaves.get(n, t.detach()) for n, t in self.inputs.items()}

    def _misfit(self, got: Mapping[str, Tensor]) -> str:
        """What is wrong with the results' shapes and dtypes, or nothing."""
        out = (*self.q.shape[:3], self.v.shape[-1])
        lse = reference.heads_first(self.q, self.layout).shape[:3]
        like = {"q": self.q, "k": self.k, "v": self.v, **self.inputs}
        want: dict[str, tuple[tuple[int, ...], torch.dtype]] = {
            "out": (out, self.q.dtype),
            "lse": (tuple(lse), torch.float32),
            **{f"d{n}": (tuple(t.shape), t.dtype) for n, t in like.items()},
        }
        for name, tensor in got.items():
            if (tuple(tensor.shape), tensor.dtype) != want[name]:
                shape, dtype = want[name]
                return f"{name} is {tensor.dtype} {tuple(tensor.shape)}, expected {dtype} {shape}"
        return ""

    def judge(self, got: Mapping[str, Tensor]) -> list[Verdict]:
        ir, dtype = self.ir, self.q.dtype
        leaves, inputs = self._leaves(torch.float64)
        exact, lse, result = self._reference(leaves, inputs)
        by_delta = self._rounding_of_delta(exact, lse, leaves)
        amplified = amplifies(ir)
        by_scores = (
            self._rounding_of_scores(exact, lse, leaves) if amplified and dtype == torch.float32 else {}
        )
        ref = self._gradients(exact, lse, leaves)
        leaves, inputs = self._leaves(None)
        out, base_lse = reference.baseline(
            ir,
            leaves["q"],
            leaves["k"],
            leaves["v"],
            inputs=inputs,
            params=self.params,
            seed=self.seed,
            layout=self.layout,
            degree=self._degree,
        )
        base = self._gradients(out, base_lse, leaves)

        sizes = self._sizes(result)
        empty = ~result.kept.any(-1)
        scores = float(result.score.detach()[result.kept].abs().max()) if result.kept.any() else 0.0
        approximate = has_tanh(ir) and dtype != torch.float32
        verdicts = []
        if lse is not None:
            verdicts.append(compare_lse("lse", got["lse"], ref["lse"], scores, approximate))
        for name, x in got.items():
            if name == "lse":
                continue
            own = self.inputs[name[1:]].dtype if name[1:] in self.inputs else dtype
            verdicts.append(
                compare(
                    name,
                    x,
                    ref[name],
                    base[name],
                    own,
                    size=sizes[name],
                    scores=scores,
                    amplified=amplified,
                    rounding=by_delta.get(name, 0.0) + by_scores.get(name, 0.0),
                )
            )
        for name in ("out", "dq"):
            rows = reference.heads_first(got[name], self.layout)
            verdicts.append(compare_zero(f"{name} of empty rows", rows, empty))
        return verdicts

    @property
    def _degree(self) -> int | None:
        """What delta is of rowsum(dO * O); None where a kernel has no delta, or sums it up key by key."""
        weight = self.ir.weight
        return (1 if weight is None else degree_of(weight)) if self.ir.is_softmax else None

    def _rounding_of_delta(
        self, out: Tensor, lse: Tensor | None, leaves: Mapping[str, Tensor]
    ) -> dict[str, float]:
        """How far each gradient goes when rounding ``out`` moves delta.

        delta = rowsum(dO * O) - d_lse, so an error of delta is one of d_lse: here of random sign, and more
        than two standard deviations of what independent roundings of a row's outputs sum up to.
        """
        if lse is None or not lse.requires_grad or not self._degree:
            return {}
        dout = reference.heads_first(self.dout, self.layout).double()
        parts = dout * reference.heads_first(out.detach(), self.layout)
        size = self._degree * torch.finfo(self.q.dtype).eps * parts.norm(dim=-1)
        random = torch.Generator().manual_seed(2028)
        largest_of = dict.fromkeys(leaves, 0.0)
        for _ in range(_DRAWS):
            grads = torch.autograd.grad(
                lse, list(leaves.values()), _signs(size, random) * size, allow_unused=True, retain_graph=True
            )
            for name, grad in zip(leaves, grads, strict=True):
                if grad is not None:
                    largest_of[name] = max(largest_of[name], largest(grad.nan_to_num(0.0, 0.0, 0.0)))
        return {f"d{name}": value for name, value in largest_of.items()}

    def _rounding_of_scores(
        self, out: Tensor, lse: Tensor | None, leaves: Mapping[str, Tensor]
    ) -> dict[str, float]:
        """How far each tensor goes when the last bits of q and k move, and with them their products.

        By the derivative, so that a score that lies on a step of its function stays there. (The baseline of
        16-bit tensors rounds whole scores, by far more.)
        """
        results = self._gradients(out, lse, leaves, again=True)
        results = {name: x for name, x in results.items() if x.requires_grad}
        # Reverse mode twice is forward mode: of <results, along> by q and k, and of that, which is linear in
        # ``along``, by it; but where that is 0 the reference takes a derivative for 0.
        along = [torch.ones_like(x, requires_grad=True) for x in results.values()]
        found = torch.autograd.grad(
            list(results.values()), [leaves["q"], leaves["k"]], along, create_graph=True, allow_unused=True
        )
        moving = {
            x: leaf.detach()
            for x, leaf in zip(found, (leaves["q"], leaves["k"]), strict=True)
            if x is not None and x.requires_grad
        }
        random = torch.Generator().manual_seed(2029)
        largest_of = dict.fromkeys(results, 0.0)
        for _ in range(_DRAWS if moving else 0):
            steps = [2.0**-23 * _signs(x, random) * x for x in moving.values()]
            apart = torch.autograd.grad(list(moving), along, steps, retain_graph=True, materialize_grads=True)
            for name, x in zip(results, apart, strict=True):
                largest_of[name] = max(largest_of[name], largest(x.nan_to_num(0.0, 0.0, 0.0)))
        return largest_of

    def _reference(
        self, leaves: Mapping[str, Tensor], inputs: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor | None, reference.Result]:
        q, k, v = (reference.heads_first(leaves[n], self.layout) for n in ("q", "k", "v"))
        env = reference.bind(self.ir, q, k, v, inputs, self.params)
        result = reference.attend(self.ir, q, k, v, env, self.seed, torch.float64)
        return reference.heads_first(result.out, self.layout), result.lse, result

    def _sizes(self, result: reference.Result) -> dict[str, float]:
        """A of each tensor: the size of what was summed to make it.

        The weights of a softmax add up to 1 along a row, and along a column to little more. Where others do
        is read off the reference.
        """
        q, k, v, dout = (reference.heads_first(t, self.layout) for t in (self.q, self.k, self.v, self.dout))
        weight = 1.0
        if self.ir.dropout is not None:
            env = reference.bind(self.ir, q, k, v, self.inputs, self.params)
            weight = reference.kept_weight(reference.drop_probability(self.ir.dropout, env))
        through = largest(dout) * largest(v) * weight + largest(self.dlse)
        rows = q.shape[2] * q.shape[1] / max(1, k.shape[1])
        sizes = {
            "out": largest(v) * weight,
            "dq": through * largest(k),
            "dk": through * largest(q),
            "dv": largest(dout) * min(8.0, rows) * weight,
        }
        if self.ir.weight is not None or not self.ir.is_softmax:
            group = max(1, result.weights.shape[1] // max(1, k.shape[1]))
            by_row, by_key = _sums(result.weights, group)
            env = reference.bind(self.ir, q, k, v, self.inputs, self.params)
            d_by_row, d_by_key = _sums(reference.slopes(self.ir, env, result), group)
            reach = largest(dout) * largest(v) * weight
            lse = largest(self.dlse) if self.ir.is_softmax else 0.0
            sizes = {
                "out": largest(v) * weight * by_row,
                "dq": (reach * d_by_row + lse) * largest(k),
                "dk": (reach * d_by_key + lse) * largest(q),
                "dv": largest(dout) * weight * by_key,
            }
        if self.learned:
            parts = reference.contributions(
                self.ir, q, k, v, dout, self.dlse, inputs=self.inputs, params=self.params, seed=self.seed
            )
            sizes |= {f"d{name}": largest(part) for name, part in parts.items()}
        return sizes

    def report(self, variant: Variant, complaint: str, verdicts: list[Verdict]) -> str:
        worst = max(verdicts, key=lambda verdict: verdict.ratio, default=None)
        if worst is not None:
            complaint = f"the error of {worst.name} is {worst.ratio:.3g} times its bound"
        if unknown := [f"{v.unknown} elements of {v.name}" for v in verdicts if v.unknown]:
            complaint = f"the reference itself is NaN, so nothing can match it: {', '.join(unknown)}"
        lines = [f"{variant.name} does not match its reference: {complaint}"]
        if worst is not None:
            lines += ["", table(verdicts)]
            place = ", ".join(map(str, worst.worst))
            lines.append(f"worst: {worst.name}[{place}] is {worst.got!r}, expected {worst.expected!r}")
        lines.append("")
        named = {"q": self.q, "k": self.k, "v": self.v, "dout": self.dout, **self.inputs}
        for name, t in named.items():
            lines.append(f"{name}: {t.dtype} {tuple(t.shape)} strides {t.stride()} on {t.device}")
        lines += [f"{name} = {value!r}" for name, value in self.params.items()]
        return "\n".join([*lines, "", "To reproduce:", "", self.script(variant)])

    def script(self, variant: Variant) -> str:
        """Python that makes the same call again."""
        named = {"q": self.q, "k": self.k, "v": self.v, "dout": self.dout, "dlse": self.dlse, **self.inputs}
        spec = getattr(variant, "spec", None)
        consts = "".join(f", {name}={value!r}" for name, value in self.ir.consts)
        made = f"attngen.compile({spec!r}{consts})" if isinstance(spec, str) else f"...  # {variant.name}"
        head = ["import torch", "import attngen", "from attngen.testing import assert_matches_reference"]
        head.append("from attngen.testing.tensor import InputRecipe, Recipe")
        body = [f"{name} = {_source_of(tensor)}" for name, tensor in named.items()]
        keywords = [f"seed={self.seed}", "dout=dout", "dlse=dlse", f"layout={self.layout!r}"]
        keywords += [f"{n}={n}" for n in self.inputs] + [f"{n}={p!r}" for n, p in self.params.items()]
        call = f"assert_matches_reference(variant, q, k, v, {', '.join(keywords)})"
        calls = [call]
        if has_small_tiles(variant):
            head.insert(3, "from attngen.testing.reach import small_tiles")
            calls = ["with small_tiles(variant):", f"    {call}"]
        return "\n".join([*head, "", f"variant = {made}", *body, *calls])


def _sums(weights: Tensor, group: int) -> tuple[float, float]:
    """The largest sum of |weights| (B,H,R,K) of a query, and of a key over its ``group`` of query heads."""
    weights = weights.detach().abs()
    by_key = weights.sum(2)
    by_key = sum((by_key[:, member::group] for member in range(1, group)), by_key[:, ::group])
    return largest(weights.sum(-1)), largest(by_key)


def _source_of(tensor: Tensor) -> str:
    """An expression that makes this tensor again: its recipe, its values if few, else a file of them."""
    if recipe := recipe_of(tensor):
        return f"{recipe!r}.build({str(tensor.device)!r})"
    if tensor.numel() <= 64:
        values = tensor.detach().double() if tensor.is_floating_point() else tensor
        text = repr(values.tolist()).replace("inf", "float('inf')").replace("nan", "float('nan')")
        made = f"torch.tensor({text}, dtype={tensor.dtype}, device={str(tensor.device)!r})"
        return made if tensor.numel() else f"{made}.reshape({tuple(tensor.shape)})"
    handle, path = tempfile.mkstemp(suffix=".pt", prefix="attngen-")
    with open(handle, "wb") as file:
        torch.save(tensor.detach(), file)
    return f"torch.load({str(Path(path))!r})"


def _signs(like: Tensor, random: torch.Generator) -> Tensor:
    """1 or -1 for each element."""
    return torch.randint(0, 2, like.shape, generator=random).to(like) * 2 - 1


def largest(x: Tensor) -> float:
    """max|x|, 0 for an empty tensor."""
    return float(x.detach().abs().max()) if x.numel() else 0.0


def table(verdicts: list[Verdict]) -> str:
    """One line a tensor: its ratio to the bound, the errors and the bounds."""
    width = max(len(verdict.name) for verdict in verdicts)
    rows = [f"{'tensor':{width}}  ratio    max error  bound     mean error  bound"]
    for r in verdicts:
        mark = "" if r.passed else "  <-- fails"
        rows.append(
            f"{r.name:{width}}  {r.ratio:<7.3g}  {r.error:<9.3g}  {r.bound:<8.3g}  "
            f"{r.mean_error:<10.3g}  {r.mean_bound:<8.3g}{mark}"
        )
    return "\n".join(rows)
