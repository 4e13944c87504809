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

    ``has_interior``: some tiles need no mask. ``has_left_edge``: masked ones may come before them.
    """

    block: str
    has_interior: bool
    has_left_edge: bool

    @property
    def interior_lo(self) -> str:
        """Where the tiles without a mask begin."""
        return "full_lo" if self.has_left_edge else "lo"

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
    clips: bool


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
    param_kinds: tuple[str, ...]
    param_checks: tuple[str, ...]
    public_parameters: tuple[str, ...]
    packed_inputs: str
    packed_call_params: str
    packed_params: str
    unpack_params: str


@dataclass(frozen=True)
class View(Call, Launch, Tiles, Ranges, Maths):
    """The templates' whole world. Field names are what the templates call them."""

    hash: str = HASH_PLACE
