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
from attngen.emit.far import distance_lines
from attngen.emit.maths import function_of
from attngen.emit.scope import Scope
from attngen.emit.statements import Block
from attngen.emit.view import Function, LearnedInput, LearnedView, ReadView
from attngen.ir.nodes import Expr, Op
from attngen.ir.printer import print_expr
from attngen.plan.learned import Learned, Read, Route

_AXES = {"b": "b", "h": "h", "h_kv": "g", "q": "q", "k": "k", "": "1"}
_WIDEST = 60  # columns of what a docstring names
_PLACED = (Route.PLACES, Route.DENSE)  # what the dQ kernel may put where it belongs


@dataclass(frozen=True)
class _Numbered:
    """A read with its place among all reads, the names of its sums and its derivative, and its input.

    ``sums`` are the sums that dQ's loop carries for it, from row ``row`` on: one, or of a band one for each
    end of its reach (behind, then ahead).
    """

    number: int
    row: int
    sums: tuple[str, ...]
    by: str
    by_weight: str
    read: Read
    learned: Learned

    @property
    def in_places(self) -> bool:
        return self.learned.route in _PLACED

    @property
    def is_band(self) -> bool:
        return self.learned.route is Route.BANDS

    @property
    def needs_derivative(self) -> bool:
        by_score = self.read.by_score
        return by_score is not None and by_score.op is not Op.CONST

    @property
    def needs_weight_derivative(self) -> bool:
        by_weight = self.read.by_weight
        return by_weight is not None and by_weight.op is not Op.CONST


def make_learned(scope: Scope) -> tuple[LearnedView, frozenset[str]]:
    """The view, and the names that its lines read from the kernels' arguments."""
    learned, reads = scope.plan.learned, _numbered(scope)
    places = [x for x in learned if x.route in _PLACED]
    units = {x.input.name: (scope.names.fresh(f"unit_{x.input.name}"), n) for n, x in enumerate(places)}
    bands = {
        x.input.name: (
            scope.names.fresh(f"spread_{x.input.name}"),
            scope.names.fresh(f"unit_{x.input.name}"),
        )
        for x in learned
        if x.route is Route.BANDS
    }
    derivatives, by_weight = _derivatives(scope, reads), _weight_derivatives(scope, reads)
    places_of = {r.number: _place(scope, r) for r in reads if r.in_places or r.is_band}
    sinks = {r.number: _sink(scope, r) for r in reads if r.read.by_sink is not None}
    views = tuple(_view(scope, r, places_of.get(r.number), sinks.get(r.number), units, bands) for r in reads)
    inputs = tuple(_input(scope, x, reads, units, bands) for x in learned)
    blocks = (*places_of.values(), *sinks.values())
    in_loop = [places_of[v.number] for v in views if v.part and v.in_places and not v.by_row]
    uses = [*_loop_uses((derivatives, by_weight), in_loop, [name for name, _ in units.values()])]
    if any(v.part and v.in_places and not v.by_row and not v.by_column for v in views):
        uses += ["row", "q_len"]  # what keeps a tile's places inside the queries
    uses += ["pos", "k"] if any(v.near_sums for v in views) else []
    view = LearnedView(
        learned=inputs,
        reads=views,
        derivatives=derivatives,
        derivative_names=tuple((r.number, r.by) for r in reads if r.needs_derivative),
        weight_derivatives=by_weight,
        weight_derivatives_target=", ".join(r.by_weight for r in reads if r.needs_weight_derivative),
        units=tuple(units.values()),
        place_arguments=tuple(a for x in places for a in _arguments(scope, x)),
        row_sums=tuple(name for r in reads for name in r.sums),
        loop_uses=tuple(uses),
    )
    known = {*view.place_arguments, *(a for v in views for a in v.arguments)}
    return view, frozenset((*_uses(blocks), *(u for f in view.derivative_functions for u in f.uses))) - known


def _numbered(scope: Scope) -> tuple[_Numbered, ...]:
    found: list[_Numbered] = []
    row = 0
    for learned in scope.plan.learned:
        name = learned.input.name
        for read in learned.reads:
            wishes = [f"sum_{name}"]
            if learned.route is Route.BANDS:
                reach = learned.reach
                assert reach is not None
                sides = (("behind", reach.ends_behind), ("ahead", reach.ends_ahead))
                wishes = [f"sum_{name}_{side}" for side, ends in sides if ends]
            sums = tuple(scope.names.fresh(wish) for wish in wishes)
            by = scope.names.fresh(f"by_{name}")
            by_weight = scope.names.fresh(f"weight_by_{name}") if read.by_weight is not None else ""
            found.append(_Numbered(len(found), row, sums, by, by_weight, read, learned))
            row += len(sums)
    return tuple(found)


def _derivatives(scope: Scope, reads: Iterable[_Numbered]) -> Function | None:
    """One function for every derivative that is not a constant."""
    wanted = [(r.read, r.read.by_score) for r in reads if r.needs_derivative]
    return _derivatives_of(scope, "input_derivatives", "the score", wanted)


def _weight_derivatives(scope: Scope, reads: Iterable[_Numbered]) -> Function | None:
    """The same of the weight clause."""
    wanted = [(r.read, r.read.by_weight) for r in reads if r.needs_weight_derivative]
    return _derivatives_of(scope, "weight_derivatives", "the weight that meets V", wanted)


def _derivatives_of(
    scope: Scope, name: str, what: str, wanted: list[tuple[Read, Expr | None]]
) -> Function | None:
    if not wanted:
        return None
    roots = tuple(derivative for _, derivative in wanted if derivative is not None)
    doc = f"The derivative of {what} by {_elements(scope, [read for read, _ in wanted])}."
    return function_of(scope, name, doc, "", roots, scope.plan.score_parts)


def _elements(scope: Scope, reads: Iterable[Read]) -> str:
    what = ", ".join(print_expr(read.load, scope.ir) for read in reads)
    is_long = "\n" in what or len(what) > _WIDEST
    return "each element of an input that it reads" if is_long else what


def _place(scope: Scope, r: _Numbered) -> Block:
    parts = scope.plan.score_parts
    columns = () if r.read.is_by_row else parts.column
    load = r.read.load
    # A band's place is found by a kernel of its own, from the distance.
    given = () if r.is_band else (*scope.program_values, *parts.row, *columns)
    block, indices = scope.kernel.written(load.args, given)
    place = scope.triton.gradient_place(load, indices)
    uses = dict.fromkeys((*block.uses, *scope.triton.reads_of_gradient_place(load)))
    return Block(block.lines, (place.text,), tuple(u for u in uses if u not in block.defines), block.defines)


def _sink(scope: Scope, r: _Numbered) -> Block:
    assert r.read.by_sink is not None
    return scope.kernel.results([r.read.by_sink], scope.program_values)


def _view(
    scope: Scope,
    r: _Numbered,
    place: Block | None,
    sink: Block | None,
    units: dict[str, tuple[str, int]],
    bands: dict[str, tuple[str, str]],
) -> ReadView:
    name = r.learned.input.name
    far_sums, far_sums_by_key, near_sums = _beyond(scope, r)
    is_kept = "weights > 0.0" if scope.plan.weights.zero_where_masked else 'logit != float("-inf")'
    changed = _part("d_weights", is_kept, r.read.by_weight, r.by_weight)
    if changed and not r.needs_weight_derivative:  # a constant: only what is kept adds it
        changed = f"tl.where({is_kept}, {changed}, 0.0)"
    return ReadView(
        number=r.number,
        sum="" if r.is_band else r.sums[0],
        part=" + ".join(p for p in (_part("d_final", "weights > 0.0", r.read.by_score, r.by), changed) if p),
        d_final=r.read.by_score is not None,
        sink_part=_part("d_sink", "sink_weight > 0.0", r.read.by_sink, sink.results[0] if sink else ""),
        sink_lines=sink.lines if sink else (),
        in_places=r.in_places,
        is_dense=r.learned.route is Route.DENSE,
        is_band=r.is_band,
        by_program=r.read.rate <= Rate.PROGRAM,
        by_row=r.read.is_by_row,
        by_column=r.read.rate is Rate.COLUMN,
        lines=place.lines if place else (),
        place=place.results[0] if place else "",
        unit=units[name][0] if name in units else "",
        pointer=f"{scope.names.gradient(name)}_ptr",
        arguments=tuple(_arguments(scope, r.learned)),
        spread=bands[name][0] if name in bands else "",
        spread_lines=distance_lines(place.uses) if r.is_band and place else (),
        far_sums=far_sums,
        far_sums_by_key=far_sums_by_key,
        near_sums=near_sums,
    )


def _beyond(scope: Scope, r: _Numbered) -> tuple[tuple[str, ...], ...]:
    """How a band's sums beyond its reach take in a far tile of keys, one of queries, and any other tile."""
    reach, far = r.learned.reach, scope.plan.far if scope.plan.splits_far else None
    if reach is None:
        return (), (), ()
    ends = (("behind", reach.ends_behind), ("ahead", reach.ends_ahead))
    sums = dict(zip((side for side, has_end in ends if has_end), r.sums, strict=True))
    inside = {"behind": f"pos - k >= {reach.high}", "ahead": f"pos - k <= {reach.low}"}
    near = (f"{name} += tl.sum(tl.where({inside[side]}, part, 0.0), 1)" for side, name in sums.items())
    if far is None:
        return (), (), tuple(near)
    far_ends = {"behind": far.reach.ends_behind, "ahead": far.reach.ends_ahead}

    def of_far(first: str, before: str) -> tuple[str, ...]:
        """``before`` is the side of the tiles that the loop meets before the near ones."""
        texts = {
            side: ("across, 0.0" if side == before else "0.0, across") if all(far_ends.values()) else ""
            for side in sums
        }
        return tuple(
            f"{name} += {f'tl.where({first} < near_lo, {texts[side]})' if texts[side] else 'across'}"
            for side, name in sums.items()
            if far_ends[side]
        )

    return of_far("n", "behind"), of_far("first", "ahead"), tuple(near)


def _part(gradient: str, is_kept: str, derivative: Expr | None, text: str) -> str:
    """One score's part. Where its weight is 0 the derivative may be infinite."""
    if derivative is None:
        return ""
    if derivative.op is not Op.CONST:
        return f"tl.where({is_kept}, {gradient} * {text if text.isidentifier() else f'({text})'}, 0.0)"
    if derivative.value in (1.0, -1.0):
        return gradient if derivative.value == 1.0 else f"-{gradient}"
    return f"{gradient} * {derivative.value!r}"


def _input(
    scope: Scope,
    learned: Learned,
    reads: Iterable[_Numbered],
    units: dict[str, tuple[str, int]],
    bands: dict[str, tuple[str, str]],
) -> LearnedInput:
    item = learned.input
    own = [r for r in reads if r.learned is learned]
    reach = learned.reach
    beyond: list[tuple[int, int]] = []
    if reach is not None:
        ends = [reach.high] * reach.ends_behind + [reach.low] * reach.ends_ahead
        beyond = [(own[0].row + n, end) for n, end in enumerate(ends)]
    spread, band_unit = bands.get(item.name, ("", ""))
    return LearnedInput(
        name=scope.names.own(item.name),
        gradient=scope.names.gradient(item.name),
        position=3 + scope.ir.inputs.index(item),
        is_read=bool(own),
        is_gathered=learned.is_gathered,
        in_places=learned.route in _PLACED and bool(own),
        is_dense=learned.route is Route.DENSE,
        is_band=learned.route is Route.BANDS,
        reads_once=learned.reads_once,
        sums=" + ".join(f"sum_of[{r.row}]" for r in own),
        axes="".join(_AXES[a] for a in learned.axes),
        shape=shape_text(scope, item),
        rank=len(item.dims),
        unit_number=units[item.name][1] if item.name in units else 0,
        read_number=own[0].number if own else 0,
        low=0 if reach is None else reach.low,
        high=0 if reach is None else reach.high,
        beyond=tuple(beyond),
        band_unit=band_unit,
        spread=spread,
    )


def _arguments(scope: Scope, learned: Learned) -> Iterable[str]:
    name = scope.names.gradient(learned.input.name)
    return f"{name}_ptr", *(f"{name}_stride_{axis}" for axis in range(len(learned.input.dims)))


def _loop_uses(
    derivatives: Iterable[Function | None], places: list[Block], units: list[str]
) -> tuple[str, ...]:
    uses = (*(u for f in derivatives if f for u in f.uses), *_uses(places))
    return (*uses, *units) if places else uses


def _uses(blocks: Iterable[Block]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(u for b in blocks for u in b.uses))
