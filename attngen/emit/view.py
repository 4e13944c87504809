"""All that a template may read: finished lines, names and flags.

A template never walks the IR. What varies with the spec is decided in the plan and written out here; what
varies with the launch (tile shapes, head dimensions) is a ``tl.constexpr`` of the template. The view has four
parts, each made by the module of its name; the templates see their fields side by side.
"""

from __future__ import annotations

from dataclasses import dataclass

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
        return tuple(f"{u}: tl.constexpr" if u == "FAST_TANH" else u for u in self.uses)

    @property
    def call(self) -> str:
        """The call, where every parameter is in scope under its own name."""
        return f"{self.name}({', '.join(self.uses)})"


@dataclass(frozen=True)
class RangeFunction(Function):
    """A jitted function that gives a tile's loop bounds; ``block`` is the streamed side's tile size.

    ``has_interior``: some tiles need no mask. ``has_gaps``: a loop may have more parts than one.
    """

    block: str
    has_interior: bool
    has_gaps: bool

    @property
    def target(self) -> str:
        """What the call is assigned to."""
        return "inner, edges" if self.has_interior else "edges"

    @property
    def call(self) -> str:
        return f"{self.name}({', '.join([*self.uses, self.block])})"


@dataclass(frozen=True)
class Context:
    """The values that a loop takes from its kernel beside its tiles, and the float arguments of that kernel
    that it or the kernel reads."""

    context: tuple[str, ...]
    floats: tuple[str, ...]

    @property
    def packed(self) -> str:
        """The items of the tuple, as the kernel makes it and the loop takes it apart."""
        return ", ".join(self.context) + ("," if len(self.context) == 1 else "")

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
    times_factor: str
    scale_by_head: bool
    scale_after: str
    scale_after_dk: str


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
        found = {n for n in ("clip", "whole_tiles", "search") for line in lines if f"{n}(" in line}
        return frozenset(found | ({"over"} if any(r.has_gaps for r in self.ranges) else set()))


@dataclass(frozen=True)
class Tiles:
    """Lines computed once a program, a row and a column, and what of the maths each kernel needs."""

    program: tuple[str, ...]
    row_score: tuple[str, ...]
    row_mask: tuple[str, ...]
    column_score: tuple[str, ...]
    column_mask: tuple[str, ...]
    forward: Context
    dkdv: Context
    dq: Context
    helpers: frozenset[str]
    uses_q: bool
    uses_k: bool
    uses_pos: bool
    uses_tanh: bool


@dataclass(frozen=True)
class ReadView:
    """One read of a learned input: the texts of what each score and each row give to its gradient.

    ``part`` is a score's part and ``sink_part`` a row's, "" where there is none. ``sum`` names the row's sum
    of them. With ``in_places`` they go to ``place``, as whole numbers of ``unit``.
    """

    number: int
    sum: str
    part: str
    sink_part: str
    sink_lines: tuple[str, ...]
    in_places: bool
    by_program: bool
    by_row: bool
    by_column: bool
    lines: tuple[str, ...]
    place: str
    unit: str


@dataclass(frozen=True)
class LearnedInput:
    """A learned input in the launcher: its rows of the kernel's ``sums``, ``axes`` that index its dims."""

    name: str
    gradient: str
    position: int
    is_read: bool
    in_places: bool
    reads_once: bool
    sums: str
    axes: str
    shape: str
    unit_number: int


@dataclass(frozen=True)
class LearnedView:
    """What the dQ kernel gathers for learned inputs; ``loop_uses`` are the names its loop needs for that."""

    learned: tuple[LearnedInput, ...]
    reads: tuple[ReadView, ...]
    derivatives: Function | None
    derivatives_target: str
    units: tuple[tuple[str, int], ...]
    place_arguments: tuple[str, ...]
    loop_uses: tuple[str, ...]

    @property
    def derivative_functions(self) -> tuple[Function, ...]:
        return () if self.derivatives is None else (self.derivatives,)

    @property
    def reads_of_score(self) -> tuple[ReadView, ...]:
        return tuple(r for r in self.reads if r.part)

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
        return ", ".join(["dq", *(r.sum for r in self.reads)])

    @property
    def has_sums(self) -> bool:
        """Whether some gradient is the sum of its rows' sums."""
        return any(x.is_read and not x.in_places for x in self.learned)

    @property
    def measures(self) -> bool:
        """Whether parts of some gradient share places, so that their magnitude must be known first."""
        return bool(self.units)

    @property
    def always_measures(self) -> bool:
        return any(x.in_places and not x.reads_once for x in self.learned)

    @property
    def places(self) -> str:
        """The items of the tuple of all places and their strides."""
        return ", ".join(f"*with_strides({x.gradient})" for x in self.learned if x.in_places) + ","

    @property
    def units_of_sums(self) -> str:
        return ", ".join(f"unit_for({x.sums})" for x in self.learned if x.in_places)

    @property
    def shares_places(self) -> str:
        """Whether some element takes the parts of several scores, as a condition."""
        return " or ".join(f"{x.gradient}.dtype == torch.int64" for x in self.learned if x.in_places)

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
class Sink:
    """The sink's logit in base 2: lines that lead to it, and its text."""

    has_sink: bool
    sink_lines: tuple[str, ...]
    sink_text: str


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
class HopperForward:
    """The forward for sm_90. ``own`` are the values that a consumer takes from its kernel, ``searches`` the
    lines of ``key_range`` where they search a row, ``tiles`` the rows of its table. ``reads_by_key``: some
    read of an input depends on the key, and so must stay inside the sequence."""

    own: tuple[str, ...]
    searches: tuple[str, ...]
    reads_by_key: bool
    tiles: tuple[tuple[int, str], ...]

    @property
    def packed(self) -> str:
        """The items of the tuple of its own values."""
        return ", ".join(self.own) + ("," if len(self.own) == 1 else "")


@dataclass(frozen=True)
class HopperView:
    """The kernels for sm_90; None where the module holds Triton's alone."""

    hopper: HopperForward | None


@dataclass(frozen=True)
class HopperBackward:
    """The fused backward for sm_90.

    ``seed`` is the text of what a row's log-sum-exp, in base 2, is multiplied by to be where the product of
    queries and keys starts; "" where the score is not linear in that product. ``early`` says that a part of
    dQ leaves its registers before the weights are computed, which need many. ``searches`` are the lines of
    ``query_range`` where they search a row; ``by_head`` says that its bounds may differ between the query
    heads of one key head: then the producer takes the arguments ``fed`` and ``fed_lines`` to find
    them. ``own`` are the arguments that a consumer takes.
    """

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
class View(HopperBackwardView, HopperView, Call, Launch, Sink, LearnedView, Tiles, Ranges, Maths):
    """The templates' whole world. Field names are what the templates call them."""

    hash: str = HASH_PLACE
