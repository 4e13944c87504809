"""What the dQ kernel gathers for the learned inputs, and where it puts it.

slopes[h] * abs(dist)   ->   by_slopes = input_derivatives(pos, k)
                             part = tl.where(weights > 0.0, d_final * by_slopes, 0.0)
                             sum_slopes += tl.sum(part, 1)
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from attngen.analysis.rates import Rate
from attngen.emit.arguments import shape_text
from attngen.emit.maths import function_of
from attngen.emit.scope import Scope
from attngen.emit.statements import Block
from attngen.emit.view import Function, LearnedInput, LearnedView, ReadView
from attngen.ir.nodes import Expr, Op
from attngen.ir.printer import print_expr
from attngen.plan.learned import Learned, Read, Route

_AXES = {"b": "b", "h": "h", "h_kv": "g", "q": "q", "": "1"}
_WIDEST = 60  # columns of what a docstring names


@dataclass(frozen=True)
class _Numbered:
    """A read with its place among all reads, the names of its sum and its derivative, and its input."""

    number: int
    sum: str
    by: str
    read: Read
    learned: Learned

    @property
    def in_places(self) -> bool:
        return self.learned.route in (Route.PLACES, Route.DENSE, Route.BANDS)

    @property
    def needs_derivative(self) -> bool:
        by_score = self.read.by_score
        return by_score is not None and by_score.op is not Op.CONST


def make_learned(scope: Scope) -> tuple[LearnedView, frozenset[str]]:
    """The view, and the names that its lines read from the kernels' arguments."""
    learned, reads = scope.plan.learned, _numbered(scope)
    places = [x for x in learned if x.route is not Route.SUMS]
    units = {x.input.name: (scope.names.fresh(f"unit_{x.input.name}"), n) for n, x in enumerate(places)}
    derivatives = _derivatives(scope, reads)
    places_of = {r.number: _place(scope, r) for r in reads if r.in_places}
    sinks = {r.number: _sink(scope, r) for r in reads if r.read.by_sink is not None}
    views = tuple(_view(r, places_of.get(r.number), sinks.get(r.number), units) for r in reads)
    inputs = tuple(_input(scope, x, reads, units) for x in learned)
    blocks = (*places_of.values(), *sinks.values())
    in_loop = [places_of[v.number] for v in views if v.part and v.in_places and not v.by_row]
    view = LearnedView(
        learned=inputs,
        reads=views,
        derivatives=derivatives,
        derivatives_target=", ".join(r.by for r in reads if r.needs_derivative),
        units=tuple(units.values()),
        place_arguments=tuple(a for x in places for a in _arguments(scope, x)),
        loop_uses=_loop_uses(derivatives, in_loop, [name for name, _ in units.values()]),
    )
    uses = (*_uses(blocks), *(derivatives.uses if derivatives else ()))
    return view, frozenset(uses) - set(view.place_arguments)


def _numbered(scope: Scope) -> tuple[_Numbered, ...]:
    pairs = [(learned, read) for learned in scope.plan.learned for read in learned.reads]
    return tuple(
        _Numbered(
            n, scope.names.fresh(f"sum_{x.input.name}"), scope.names.fresh(f"by_{x.input.name}"), read, x
        )
        for n, (x, read) in enumerate(pairs)
    )


def _derivatives(scope: Scope, reads: Iterable[_Numbered]) -> Function | None:
    """One function for every derivative that is not a constant."""
    wanted = [r.read for r in reads if r.needs_derivative]
    if not wanted:
        return None
    what = ", ".join(print_expr(read.load, scope.ir) for read in wanted)
    if "\n" in what or len(what) > _WIDEST:
        what = "each element of an input that it reads"
    roots = tuple(read.by_score for read in wanted if read.by_score is not None)
    doc = f"The derivative of the score by {what}."
    return function_of(scope, "input_derivatives", doc, "", roots, scope.plan.score_parts)


def _place(scope: Scope, r: _Numbered) -> Block:
    parts = scope.plan.score_parts
    columns = () if r.read.is_by_row else parts.column
    load = r.read.load
    block, indices = scope.kernel.written(load.args, (*scope.program_values, *parts.row, *columns))
    place = scope.triton.gradient_place(load, indices)
    uses = dict.fromkeys((*block.uses, *scope.triton.reads_of_gradient_place(load)))
    return Block(block.lines, (place.text,), tuple(u for u in uses if u not in block.defines), block.defines)


def _sink(scope: Scope, r: _Numbered) -> Block:
    assert r.read.by_sink is not None
    return scope.kernel.results([r.read.by_sink], scope.program_values)


def _view(
    r: _Numbered, place: Block | None, sink: Block | None, units: dict[str, tuple[str, int]]
) -> ReadView:
    return ReadView(
        number=r.number,
        sum=r.sum,
        part=_part("d_final", "weights", r.read.by_score, r.by),
        sink_part=_part("d_sink", "sink_weight", r.read.by_sink, sink.results[0] if sink else ""),
        sink_lines=sink.lines if sink else (),
        in_places=r.in_places,
        by_program=r.read.rate <= Rate.PROGRAM,
        by_row=r.read.is_by_row,
        by_column=r.read.rate is Rate.COLUMN,
        lines=place.lines if place else (),
        place=place.results[0] if place else "",
        unit=units[r.learned.input.name][0] if place else "",
    )


def _part(gradient: str, weight: str, derivative: Expr | None, text: str) -> str:
    """One score's part. Where its weight is 0 the derivative may be infinite."""
    if derivative is None:
        return ""
    if derivative.op is not Op.CONST:
        return f"tl.where({weight} > 0.0, {gradient} * {text if text.isidentifier() else f'({text})'}, 0.0)"
    if derivative.value in (1.0, -1.0):
        return gradient if derivative.value == 1.0 else f"-{gradient}"
    return f"{gradient} * {derivative.value!r}"


def _input(
    scope: Scope, learned: Learned, reads: Iterable[_Numbered], units: dict[str, tuple[str, int]]
) -> LearnedInput:
    item = learned.input
    numbers = [r.number for r in reads if r.learned is learned]
    in_places = learned.route is not Route.SUMS
    return LearnedInput(
        name=scope.names.own(item.name),
        gradient=scope.names.gradient(item.name),
        position=3 + scope.ir.inputs.index(item),
        is_read=bool(numbers),
        in_places=in_places and bool(numbers),
        reads_once=learned.reads_once,
        sums=" + ".join(f"sum_of[{n}]" for n in numbers),
        axes="".join(_AXES[a] for a in learned.axes),
        shape=shape_text(scope, item),
        unit_number=units[item.name][1] if item.name in units else 0,
    )


def _arguments(scope: Scope, learned: Learned) -> Iterable[str]:
    name = scope.names.gradient(learned.input.name)
    return f"{name}_ptr", *(f"{name}_stride_{axis}" for axis in range(len(learned.input.dims)))


def _loop_uses(derivatives: Function | None, places: list[Block], units: list[str]) -> tuple[str, ...]:
    uses = (*(derivatives.uses if derivatives else ()), *_uses(places))
    return (*uses, *units, "row", "q_len") if places else uses


def _uses(blocks: Iterable[Block]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(u for b in blocks for u in b.uses))
