"""All that a template may read: finished lines, names and flags.

A template never walks the IR. What varies with the spec is decided in the plan and written out here; what
varies with the launch (tile shapes, head dimensions) is a ``tl.constexpr`` of the template. The view has four
parts, each made by the module of its name; the templates see their fields side by side.
"""

from __future__ import annotations

from dataclasses import dataclass

from attngen.emit.reads import names_in

#: Stands for the module's own hash until the text is complete.
HASH_PLACE = "0123456789ab"


@dataclass(frozen=True)
class Function:
    """A jitted function of the variant's maths. ``uses`` are its parameters' names, in order."""

    name: str
    doc: str
    lines: tuple[str, ...]
    result: str
    uses: tuple[str, ...]

    @property
    def parameters(self) -> tuple[str, ...]:
        """The parameters as the function declares them."""
        return tuple(f"{u}: tl.constexpr" if u in ("FAST_TANH", "FAST_RECIPROCAL") else u for u in self.uses)

    @property
    def call(self) -> str:
        """The call, where every parameter is in scope under its own name."""
        return f"{self.name}({', '.join(self.uses)})"


@dataclass(frozen=True)
class RangeFunction(Function):
    """A jitted function that gives a tile's loop bounds; ``block`` is the streamed side's tile size.

    ``has_interior``: some tiles need no mask. ``has_gaps``: a loop may have more parts than one.
    ``is_by_head``: the query heads of one key head may differ in it.
    """

    block: str
    has_interior: bool
    has_gaps: bool
    is_by_head: bool

    @property
    def target(self) -> str:
        """What the call is assigned to."""
        return "inner, edges" if self.has_interior else "edges"

    @property
    def parameters(self) -> tuple[str, ...]:
        return (*self.uses, "BLOCK: tl.constexpr") if self._reads_block else self.uses

    @property
    def call(self) -> str:
        return f"{self.name}({', '.join([*self.uses, self.block] if self._reads_block else self.uses)})"

    @property
    def _reads_block(self) -> bool:
        return any("BLOCK" in line for line in self.lines)


@dataclass(frozen=True)
class Context:
    """The values that a loop takes from its kernel beside its tiles, and the float arguments of that kernel
    that it or the kernel reads."""

    context: tuple[str, ...]
    floats: tuple[str, ...]

    @property
    def packed(self) -> str:
        """The items of the tuple, as the kernel makes it and the loop takes it apart."""
        return _items(self.context)

    @property
    def unpacked(self) -> str:
        return self.packed


@dataclass(frozen=True)
class Gradient:
    """How the backward kernels get the logit and, where it varies, the score's derivative."""

    target: str
    call: str


@dataclass(frozen=True)
class InputView:
    """An input as the module's table of inputs declares it; ``dims`` is a tuple's text."""

    name: str
    dtype: str
    dims: str
    grad: bool


@dataclass(frozen=True)
class Maths:
    """The variant's maths: its functions, and the expressions that call them."""

    functions: tuple[Function, ...]
    logits: Function
    gradient: Gradient
    gain: str
    keep_keys: str
    keep_pairs: str
    keep_whole: str
    times_factor: str
    scale_by_head: bool
    scale_after: str
    scale_after_dk: str


@dataclass(frozen=True)
class WeightsView:
    """From logits to the weights that meet V, and back: functions, and the texts that call them.

    ``has_lse``: a softmax, whose rows have a log-sum-exp and a delta. ``two_passes``: its sums must be known
    before the weight clause is applied, and delta is summed up key by key. ``degree`` is the clause's.
    ``normalized`` is "" for a softmax, ``reweighted`` and ``weight_slope`` where there is nothing to call;
    ``d_final`` and ``d_score`` are the gradients of the final score and of scale * dot.
    """

    weight_functions: tuple[Function, ...]
    has_lse: bool
    two_passes: bool
    degree: int
    normalized: str
    reweighted: str
    weight_slope: str
    d_final: str
    d_score: str

    @property
    def uses_reciprocal(self) -> bool:
        """Whether the weights are sigmoids."""
        return "FAST_RECIPROCAL" in self.normalized

    @property
    def forward_is_online(self) -> bool:
        """Whether the weights are made over a running maximum, and divided at the end."""
        return self.has_lse and not self.two_passes

    @property
    def results(self) -> str:
        """What the forward operator gives."""
        return "out, lse, parts" if self.has_lse else "out"

    def to_degree(self, name: str) -> str:
        """The power that the factor ``name`` of a row's weights becomes."""
        return " * ".join([name] * self.degree)


@dataclass(frozen=True)
class Ranges:
    """The functions that give the loop bounds."""

    ranges: tuple[RangeFunction, ...]
    key_range: RangeFunction
    query_range: RangeFunction

    @property
    def range_helpers(self) -> frozenset[str]:
        """Which of the templates' functions the bounds and the loops call."""
        lines = [line for r in self.ranges for line in r.lines]
        found = {
            n
            for n in ("clip", "out_of_the_way", "whole_tiles", "search")
            for line in lines
            if f"{n}(" in line
        }
        return frozenset(found | ({"over"} if any(r.has_gaps for r in self.ranges) else set()))


@dataclass(frozen=True)
class Picker:
    """A function that lists the tiles to visit: its parameters, and where corners tell, what says which."""

    uses: tuple[str, ...]
    condition: str

    @property
    def arguments(self) -> str:
        return ", ".join(self.uses)


@dataclass(frozen=True)
class Look:
    """A kernel that evaluates the mask before the others run: its lines, and what the mask differs by."""

    lines: tuple[str, ...]
    floats: tuple[str, ...]
    by_batch: bool
    by_head: bool
    by_key_head: bool


@dataclass(frozen=True)
class Picks:
    """Whether programs list their tiles, by their corners (``may_keep``) or after a look at the mask."""

    picks: bool
    may_keep: Function | None
    look: Look | None
    of_keys: Picker
    of_queries: Picker

    @property
    def functions_of_corners(self) -> tuple[Function, ...]:
        return () if self.may_keep is None else (self.may_keep,)

    @property
    def picked_arguments(self) -> tuple[str, ...]:
        """What kernels take beside the variant's own arguments, to find the tiles to visit."""
        return () if self.look is None else ("kept_ptr", "kept_stride_b", "kept_stride_h")


@dataclass(frozen=True)
class Tiles:
    """Lines computed once a program, a row and a column, and what of the maths each kernel needs.

    ``program_near`` leaves out what far tiles alone read. ``keys_mask`` and ``queries_mask`` are
    ``column_mask`` and ``row_mask`` in a loop that streams keys, and queries.
    """

    program: tuple[str, ...]
    program_near: tuple[str, ...]
    row_score: tuple[str, ...]
    row_mask: tuple[str, ...]
    column_score: tuple[str, ...]
    column_mask: tuple[str, ...]
    keys_mask: tuple[str, ...]
    queries_mask: tuple[str, ...]
    forward: Context
    sums: Context
    deltas: Context
    dkdv: Context
    fused: Context
    dq: Context
    helpers: frozenset[str]
    uses_q: bool
    uses_k: bool
    uses_pos: bool
    uses_tanh: bool

    @property
    def positions(self) -> tuple[str, ...]:
        """Which of q, k and pos the lines read."""
        words = (("q", self.uses_q), ("k", self.uses_k), ("pos", self.uses_pos))
        return tuple(word for word, used in words if used)


@dataclass(frozen=True)
class FarView:
    """Lines for tiles far from the diagonal. ``near_keys`` and ``near_queries`` are the ends of what is near.

    ``held_lines`` load what is one and the same along a whole diagonal of tiles.
    """

    has_far: bool
    far_functions: tuple[Function, ...]
    far_logits: str
    far_gradient: str
    far_derivatives: str
    far_key_lines: tuple[str, ...]
    far_query_lines: tuple[str, ...]
    near_keys: tuple[str, str]
    near_queries: tuple[str, str]
    held_lines: tuple[str, ...]


@dataclass(frozen=True)
class NearView:
    """What near tiles read at each distance from ``low`` to ``high``, of which there are ``count``.

    ``names`` are what loops call it, ``values`` (lines and a text each, found from ``words``) with what a
    kernel fills the table of it.
    """

    names: tuple[str, ...]
    values: tuple[tuple[tuple[str, ...], str], ...]
    words: tuple[str, ...]
    low: int
    high: int
    count: int

    @property
    def width(self) -> int:
        """Numbers of each head."""
        return self.count * len(self.names)

    @property
    def origin(self) -> str:
        """From the first distance to distance 0."""
        return f" - {self.low}" if self.low > 0 else f" + {-self.low}" if self.low else ""


@dataclass(frozen=True)
class ReadView:
    """One read of a learned input: the texts of what each score and each row give to its gradient.

    ``part`` is a score's part and ``sink_part`` a row's, "" where there is none; ``d_final`` says that the
    part reads the gradient of the final score. ``sum`` names the row's sum of them. With ``in_places`` they
    go to ``place``, as whole numbers of ``unit``; a dense read's only if the kernel got a ``pointer``. Of a
    band, ``far_sums`` (``far_sums_by_key`` where queries stream past keys) and ``near_sums`` add up what lies
    beyond its reach, and ``spread`` names the kernel that adds the rest to ``place``.
    """

    number: int
    sum: str
    part: str
    d_final: bool
    sink_part: str
    sink_lines: tuple[str, ...]
    in_places: bool
    is_dense: bool
    is_band: bool
    by_program: bool
    by_row: bool
    by_column: bool
    lines: tuple[str, ...]
    place: str
    unit: str
    pointer: str
    arguments: tuple[str, ...]
    spread: str
    spread_lines: tuple[str, ...]
    far_sums: tuple[str, ...]
    far_sums_by_key: tuple[str, ...]
    near_sums: tuple[str, ...]


@dataclass(frozen=True)
class LearnedInput:
    """A learned input in the launcher: its rows of the kernel's ``sums``, ``axes`` that index its dims.

    ``beyond`` has, for each end of a band's reach, its row of the sums and the distance.
    """

    name: str
    gradient: str
    position: int
    is_read: bool
    is_gathered: bool
    in_places: bool
    is_dense: bool
    is_band: bool
    reads_once: bool
    sums: str
    axes: str
    shape: str
    rank: int
    unit_number: int
    read_number: int
    low: int
    high: int
    beyond: tuple[tuple[int, int], ...]
    band_unit: str
    spread: str

    @property
    def is_whole(self) -> str:
        """Whether neither queries nor keys broadcast, as a condition."""
        q, k = (f"{self.name}.shape[{self.axes.index(axis)}]" for axis in "qk")
        return f"({q}, {k}) == (q.shape[2], k.shape[2])"


@dataclass(frozen=True)
class LearnedView:
    """What the kernels gather for learned inputs; ``loop_uses`` are the names that dQ's loop needs for that.

    ``row_sums`` names the sums that dQ's loop carries for each query.
    """

    learned: tuple[LearnedInput, ...]
    reads: tuple[ReadView, ...]
    derivatives: Function | None
    derivative_names: tuple[tuple[int, str], ...]
    weight_derivatives: Function | None
    weight_derivatives_target: str
    units: tuple[tuple[str, int], ...]
    place_arguments: tuple[str, ...]
    row_sums: tuple[str, ...]
    loop_uses: tuple[str, ...]

    @property
    def derivative_functions(self) -> tuple[Function, ...]:
        return tuple(f for f in (self.derivatives, self.weight_derivatives) if f is not None)

    @property
    def uses_d_final(self) -> bool:
        """Whether some part is one of the final score's gradient."""
        return any(r.d_final for r in self.reads)

    @property
    def reads_weight(self) -> bool:
        """Whether some part is one of the gradient of the weights that meet V."""
        return any("d_weights" in r.part for r in self.reads)

    @property
    def gathered_target(self) -> str:
        """What dQ's loop assigns the derivatives to, "" if it needs none."""
        return self._target(self.gathered_reads)

    @property
    def band_target(self) -> str:
        return self._target(self.band_reads)

    @property
    def dense_target(self) -> str:
        return self._target(self.dense_reads)

    def _target(self, reads: tuple[ReadView, ...]) -> str:
        wanted = {r.number for r in reads}
        names = [name if number in wanted else "_" for number, name in self.derivative_names]
        return ", ".join(names) if set(names) - {"_"} else ""

    @property
    def gathered_reads(self) -> tuple[ReadView, ...]:
        """Reads of the score that dQ's loop gathers, all or in part."""
        return tuple(r for r in self.reads if r.part and (r.near_sums or not r.is_band))

    @property
    def band_reads(self) -> tuple[ReadView, ...]:
        return tuple(r for r in self.reads if r.is_band)

    @property
    def dense_reads(self) -> tuple[ReadView, ...]:
        return tuple(r for r in self.reads if r.is_dense)

    @property
    def own_reads(self) -> tuple[ReadView, ...]:
        """Reads with a kernel whose programs own tiles of the gradient."""
        return self.band_reads + self.dense_reads

    @property
    def gathers(self) -> bool:
        """Whether the dQ kernel gathers anything."""
        return bool(self.row_sums)

    @property
    def puts(self) -> bool:
        """Whether parts are put into places."""
        return bool(self.units or self.band_reads)

    @property
    def uses_sums(self) -> bool:
        return self.has_sums or self.sums_beyond or self.measures

    @property
    def sums_beyond(self) -> bool:
        """Whether some band's reach ends."""
        return any(x.beyond for x in self.learned)

    @property
    def row_reads(self) -> tuple[ReadView, ...]:
        """Reads whose place is known once a row."""
        return tuple(r for r in self.reads if r.in_places and r.by_row)

    @property
    def sink_reads(self) -> tuple[ReadView, ...]:
        return tuple(r for r in self.reads if r.sink_part)

    @property
    def dq_state(self) -> str:
        """What the dQ kernel's loop carries."""
        return ", ".join(["dq", *self.row_sums])

    @property
    def has_sums(self) -> bool:
        """Whether some gradient is the sum of its rows' sums."""
        return any(x.is_read and not x.in_places and not x.is_band for x in self.learned)

    @property
    def asks_queries(self) -> bool:
        """Whether some gradient's gathering reads sizes, or the device, from the queries."""
        return bool(self.own_reads) or self.measures or any(not x.is_read for x in self.learned)

    @property
    def asks_keys(self) -> bool:
        """Whether some gradient's gathering reads sizes from the keys."""
        return bool(self.own_reads) or self.has_sums or any(x.is_dense for x in self.learned)

    @property
    def gathered_names(self) -> str:
        return ", ".join(x.name for x in self.learned if x.is_gathered)

    @property
    def measures(self) -> bool:
        """Whether parts of some gradient may share places, so that their magnitude must be known first."""
        return bool(self.units)

    @property
    def always_measures(self) -> bool:
        return any(x.in_places and not x.is_dense for x in self.learned)

    @property
    def places(self) -> str:
        """The items of the tuple of all places and their strides."""
        rank = bool(self.dense_reads)
        items = (f"{x.gradient}{f', {x.rank}' if rank else ''}" for x in self.learned if x.in_places)
        return ", ".join(f"*with_strides({item})" for item in items) + ","

    @property
    def units_of_sums(self) -> str:
        return ", ".join(f"unit_for({x.sums})" for x in self.learned if x.in_places)

    @property
    def shares_places(self) -> str:
        """Whether some element takes the parts of several scores, as a condition."""
        shared = (x.gradient for x in self.learned if x.in_places)
        return " or ".join(f"({g} is not None and {g}.dtype == torch.int64)" for g in shared)

    @property
    def no_places(self) -> str:
        """What the dQ kernel gets for sums, units and places where no gradient is wanted."""
        return ", ".join(["None"] * (1 + bool(self.units) + len(self.place_arguments)))

    @property
    def learned_names(self) -> str:
        return ", ".join(x.name for x in self.learned)

    @property
    def learned_gradients(self) -> str:
        return ", ".join(x.gradient for x in self.learned)


@dataclass(frozen=True)
class Rank:
    """A length of rows: its constants in the kernels (the length, the tiles' width), and the host's text.

    ``place`` is its number among the launcher's ranks.
    """

    name: str
    block: str
    text: str
    place: int


@dataclass(frozen=True)
class FactorView:
    """One side of a product of rows. ``name`` is its tile in a kernel, ``input`` its tensor in the launcher,
    which the spec calls ``declared``, and which is number ``place`` among the inputs.

    ``axes`` names its dimensions: b, h, g (key heads), s (length) and r (rank). ``batch`` and ``head`` are
    what a kernel indexes them by; ``gradient`` is "" where none is asked for.
    """

    name: str
    declared: str
    input: str
    place: int
    axes: str
    batch: str
    head: str
    by_head: bool
    tma: str
    block: str
    length: str
    gradient: str

    @property
    def shape(self) -> str:
        """The launcher's text of batch, heads and length."""
        heads = "k.shape[1]" if "g" in self.axes else "q.shape[1]"
        return f"q.shape[0], {heads}, {'q' if self.length == 'q_len' else 'k'}.shape[2]"

    @property
    def source(self) -> str:
        """What the kernel loads its tiles from, as ``load_tile`` takes it."""
        return f"({self.name}_source, {self.batch}, {self.head}, {self.length}, {self.name}_strides)"


@dataclass(frozen=True)
class ProductView:
    """A product of rows, ``text`` in the spec. ``tile`` names its tile; gradients multiply ``adjoint``.

    ``joins``: it is added to the tile ``dot``, and has none of its own.
    ``number`` is what they are multiplied by besides, "" where by nothing; ``number_after``: once, after the
    sum, in both backward kernels.
    """

    text: str
    tile: str
    rows: FactorView
    columns: FactorView
    rank: Rank
    adjoint: str
    joins: bool
    d_tile: str
    number: str
    number_after: bool

    @property
    def row_adjoint(self) -> str:
        """The tile that the dQ kernel multiplies with the keys' side."""
        return "d_score" if self.adjoint == "d_score" else self.d_tile

    @property
    def column_adjoint(self) -> str:
        """The text of what the dK/dV kernel multiplies with the queries' side."""
        in_loop = self.number and not self.number_after
        return f"{self.adjoint} * {self.number}" if in_loop else self.adjoint


@dataclass(frozen=True)
class LearnedFactor:
    """An input declared ``grad``, and where it is a product's factor.

    Where ``is_gathered``, its gradient or a part of it comes without a product, and ``place`` is its place
    among those.
    """

    name: str
    is_gathered: bool
    place: int
    factors: tuple[FactorView, ...]


@dataclass(frozen=True)
class ProductsView:
    """The score's further matrix products, and their gradients."""

    products: tuple[ProductView, ...]
    product_derivatives: Function | None
    product_derivatives_target: str
    ranks: tuple[Rank, ...]
    learned_factors: tuple[LearnedFactor, ...]

    @property
    def product_functions(self) -> tuple[Function, ...]:
        return () if self.product_derivatives is None else (self.product_derivatives,)

    @property
    def factors(self) -> tuple[FactorView, ...]:
        """All sides of all products."""
        return tuple(side for p in self.products for side in (p.rows, p.columns))

    @property
    def learned_rows(self) -> tuple[ProductView, ...]:
        """The products whose queries' side has a gradient, which the dQ kernel gathers."""
        return tuple(p for p in self.products if p.rows.gradient)

    @property
    def learned_columns(self) -> tuple[ProductView, ...]:
        """The products whose keys' side has a gradient, which the dK/dV kernel gathers."""
        return tuple(p for p in self.products if p.columns.gradient)

    @property
    def learns_factors(self) -> bool:
        return bool(self.learned_rows or self.learned_columns)

    @property
    def row_factors(self) -> str:
        """What a query tile's program hands its loop: the rows' tiles, and where the keys' sides are."""
        return ", ".join(f"{p.rows.name}, {p.columns.name}_of" for p in self.products)

    @property
    def column_factors(self) -> str:
        """The same of a key tile's program."""
        return ", ".join(f"{p.columns.name}, {p.rows.name}_of" for p in self.products)

    @property
    def factor_names(self) -> str:
        return ", ".join(f.name for f in self.factors)

    @property
    def factors_declared(self) -> str:
        """The spec's names of the inputs that are factors."""
        return ", ".join(dict.fromkeys(f.declared for f in self.factors))

    @property
    def factor_inputs(self) -> str:
        """The inputs that are factors, as arguments."""
        return ", ".join(dict.fromkeys(f.input for f in self.factors))

    @property
    def factor_places(self) -> str:
        """The same inputs, in the call's tuple of all."""
        return ", ".join(f"inputs[{n}]" for n in dict.fromkeys(f.place for f in self.factors))


@dataclass(frozen=True)
class Sink:
    """The sink's logit in base 2: lines that lead to it, and its text."""

    has_sink: bool
    sink_lines: tuple[str, ...]
    sink_text: str


@dataclass(frozen=True)
class Guards:
    """What the forward is spared.

    ``has_empty_rows``: it looks for rows that kept nothing, if ``empty_rows_if`` (a condition of the kernel's
    sizes), or always where that is "". ``takes_no_max``: but for float16, no maximum leaves the exponents.
    """

    has_empty_rows: bool
    empty_rows_if: str
    takes_no_max: bool


@dataclass(frozen=True)
class Launch:
    """The variant's own arguments of the kernels, and what the launcher computes for them."""

    kernel_arguments: tuple[str, ...]
    unspecialized: str
    launch_arguments: tuple[str, ...]
    launch_sizes: tuple[tuple[str, str], ...]
    dropout_text: str
    has_dropout: bool
    fast_tanh: bool
    host_math: bool
    host_float32: bool
    host_float64: bool
    host_strides: bool
    by_pointers: int  # the widest heads that short work reads by pointers
    tiles: tuple[tuple[str, tuple[tuple[int, str], ...]], ...]


@dataclass(frozen=True)
class Call:
    """The Python call: its signature, its checks, the operator's schema, and the module's own words."""

    name: str
    attention: str
    docstring: str
    call_doc: str
    inputs: tuple[InputView, ...]
    operator_names: tuple[str, ...]
    tensor_count: int  # of operator_names: q, k, v, the inputs, the seed
    operator_arguments: tuple[tuple[str, str], ...]
    input_gradients: str
    param_kinds: tuple[str, ...]
    param_checks: tuple[str, ...]
    public_parameters: tuple[str, ...]
    input_names: str
    packed_inputs: str
    packed_call_params: str
    packed_params: str
    unpack_params: str


@dataclass(frozen=True)
class DenseView:
    """An input that comes in tiles: ``tile`` names the numbers of one tile of scores, ``input`` the tensor.

    ``functions`` are the maths that takes the tile; ``place`` has the indices beside query and key,
    ``gradient_place`` those in its gradient, and ``is_shared`` says whether all of the batch read the same
    tiles.
    """

    tile: str
    input: str
    functions: tuple[Function, ...]
    place: str
    gradient_place: str
    is_shared: str

    @property
    def by_key_head(self) -> bool:
        """Whether the key head tells where the tiles lie."""
        return "h_kv" in self.place


@dataclass(frozen=True)
class HopperForward:
    """The forward for sm_90.

    ``logits`` is the call that gives a tile's, ``context`` what its loop takes, ``positions`` which of q, k
    and pos its lines read, ``dense`` the input that comes in tiles. ``has_far``: tiles far from the diagonal
    have loops of their own; ``near``: what the others read by distance has been listed. ``program`` are the
    lines of a tile of queries before its loops. ``own`` are the arguments that a consumer takes, ``place``
    are lines that give batch and head of a tile, as far as others read them; the producer takes ``fed``, and
    computes ``fed_lines`` of them, to find where tiles lie. ``keep`` says which scores of a masked tile
    count, ``searches`` are the lines of ``key_range`` where they search a row, ``tiles`` the rows of its
    table. ``reads_by_key``: some read of an input depends on the key, and so must stay inside the sequence;
    ``reads_h_kv``: some line of a tile does on the key head. ``own_range`` is the call that gives the keys of
    one warpgroup's queries, where they are the first of all its program's. ``deals``: later queries never
    have fewer keys, so that few tiles can be dealt out evenly beforehand.
    """

    logits: str
    context: tuple[str, ...]
    positions: tuple[str, ...]
    dense: DenseView | None
    has_far: bool
    near: NearView | None
    program: tuple[str, ...]
    own: tuple[str, ...]
    place: tuple[str, ...]
    reads_head: bool
    reads_h_kv: bool
    fed: tuple[str, ...]
    fed_lines: tuple[str, ...]
    keep: str
    searches: tuple[str, ...]
    own_range: str
    deals: bool
    reads_by_key: bool
    tiles: tuple[tuple[int, str], ...]
    filled: tuple[tuple[int, int], ...]  # from how many tiles a multiprocessor on it is the faster one

    @property
    def packed_fed(self) -> str:
        """The items of the tuple of the producer's."""
        return _items(self.fed)


@dataclass(frozen=True)
class HopperView:
    """The kernels for sm_90; None where the module holds Triton's alone."""

    hopper: HopperForward | None


@dataclass(frozen=True)
class SinkSums:
    """Reads of learned inputs by the sink. ``lines`` come before its own, ``sizes`` are those that it takes
    beside heads and q_len, with the launcher's texts."""

    reads: tuple[ReadView, ...]
    lines: tuple[str, ...]
    sizes: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class HopperBackward:
    """The fused backward for sm_90.

    ``gradient``, ``context``, ``positions``, ``dense``, ``has_far``, ``near`` and ``program`` are as in the
    forward. ``part`` is what a score gives to the gradient of the dense input, "" where the kernel does not
    gather that. ``gathered`` are the reads of learned inputs whose ``sums`` it adds up by key, ``of_sink``
    those by the sink, with what a kernel of their own needs; ``sum_of`` the launcher's text of all their
    sums. ``in_wide``: the backward of wide heads can do without the first. ``in_wider``: every score adds to
    them, which gains beside more than 64 columns alone.

    ``seed`` is the text of what a row's log-sum-exp, in base 2, is multiplied by to be where the product of
    queries and keys starts; "" where the score is not linear in that product. ``early`` says that a part of
    dQ leaves its registers before the weights are computed, which need many. ``searches`` are the lines of
    ``query_range`` where they search a row; ``by_head`` says that its bounds may differ between the query
    heads of one key head: then the producer takes the arguments ``fed`` and ``fed_lines`` to find
    them. ``own`` are the arguments that a consumer takes.
    """

    gradient: str
    above: int  # the widest head dimension that it leaves to others
    context: tuple[str, ...]
    positions: tuple[str, ...]
    dense: DenseView | None
    has_far: bool
    near: NearView | None
    program: tuple[str, ...]
    part: str
    gathered: tuple[ReadView, ...]
    sums: tuple[str, ...]
    of_sink: SinkSums | None
    sum_of: str
    in_wide: bool
    in_wider: bool
    seed: str
    early: bool
    searches: tuple[str, ...]
    by_head: bool
    fed: tuple[str, ...]
    fed_lines: tuple[str, ...]
    own: tuple[str, ...]


@dataclass(frozen=True)
class HopperBackwardView:
    """The fused backward for sm_90; None where the module holds Triton's two kernels alone."""

    hopper_backward: HopperBackward | None


@dataclass(frozen=True)
class HopperWide:
    """The backward of wide heads for sm_90. ``context`` is what its loop over keys takes, ``own`` the values
    that a consumer of dQ takes from its kernel; the loops over queries take what the fused backward's do.
    ``asks_head`` says whether a tile of keys needs to know the query head."""

    context: tuple[str, ...]
    own: tuple[str, ...]
    asks_head: bool


@dataclass(frozen=True)
class HopperWideView:
    """The backward of wide heads for sm_90; None where the module has Triton's two kernels alone for them."""

    hopper_wide: HopperWide | None


@dataclass(frozen=True)
class View(
    HopperWideView,
    HopperBackwardView,
    HopperView,
    Call,
    Launch,
    Guards,
    Sink,
    ProductsView,
    LearnedView,
    FarView,
    Tiles,
    Ranges,
    Picks,
    WeightsView,
    Maths,
):
    """The templates' whole world. Field names are what the templates call them."""

    hash: str = HASH_PLACE

    @property
    def own_names(self) -> tuple[str, ...]:
        """Those of the operator's arguments from which the variant's own arguments are computed."""
        read = names_in((*self.launch_arguments, *(text for _, text in self.launch_sizes), self.dropout_text))
        if self.has_sink and self.inputs:  # which are replaced where there are no keys
            read |= {"k", *names_in([self.input_names])}
        return tuple(name for name in self.operator_names if name in read)

    @property
    def variant_names(self) -> tuple[str, ...]:
        """The same, and what a look at the mask takes beside them."""
        read = {*self.own_names, *(("q", "k") if self.look else ())}
        return tuple(name for name in self.operator_names if name in read)

    @property
    def finish_arguments(self) -> tuple[tuple[str, str], ...]:
        """The variant's own arguments by which the sums of dQ are multiplied at last: the name, and its place
        among all that the launcher has."""
        read = names_in([self.scale_after_dk])
        places = enumerate(self.kernel_arguments, -len(self.kernel_arguments))
        return tuple((name, f"own[{place}]") for place, name in places if name in read)

    @property
    def returns_sums(self) -> bool:
        """Whether the kernels leave nothing of the learned inputs' gradients to do but to add up sums."""
        needs_more = self.measures or self.own_reads or self.learns_factors
        return self.gathers and not needs_more

    @property
    def gathers_by_key(self) -> bool:
        """Whether the fused backward for sm_90 gathers sums of learned inputs."""
        return self.hopper_backward is not None and bool(self.hopper_backward.sums)

    @property
    def asks_q_last(self) -> bool:
        """Whether a tile of queries needs to know its last."""
        return "q_last" in (*self.key_range.uses, *self.of_keys.uses)

    @property
    def asks_k_last(self) -> bool:
        """Whether a tile of keys needs to know its last."""
        return "k_last" in (*self.query_range.uses, *self.of_queries.uses)


def _items(names: tuple[str, ...]) -> str:
    """The items of a tuple, as it is made and taken apart."""
    return ", ".join(names) + ("," if len(names) == 1 else "")
