"""The Python call: the signature, the checks of its params, the operator's schema.

param cap: float = 50.0   ->   def softcap(q, k, v, *, cap=50.0, ...)
checked by                     cap = float_param("cap", cap)
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator

from attngen.analysis.rates import Rate, rates
from attngen.emit.arguments import run_time_sizes, size_of
from attngen.emit.docstring import call_docstring, module_docstring
from attngen.emit.scope import Scope
from attngen.emit.view import Call, InputView
from attngen.ir.nodes import AttentionIR, Expr, Op, leaves, postorder
from attngen.ir.printer import print_expr
from attngen.ir.types import Scalar

_WIDEST = 60  # columns of a divisor in the message about it


def make_call(scope: Scope) -> Call:
    """Everything about the Python call."""
    ir, own = scope.ir, scope.names.own
    inputs = tuple(own(i.name) for i in ir.inputs)
    params = tuple(own(p.name) for p in ir.params)
    kinds = {own(p.name): p.type.value for p in ir.params}
    seed = ("seed",) if ir.dropout is not None else ()
    names = ("q", "k", "v", *inputs, *seed, *params)
    return Call(
        name=ir.name,
        attention=scope.names.function("run_attention"),
        docstring=module_docstring(scope.plan),
        call_doc=call_docstring(scope.plan),
        inputs=tuple(InputView(i.name, i.dtype, repr(i.dims).replace("'", '"'), i.grad) for i in ir.inputs),
        operator_names=names,
        tensor_count=len(names) - len(params),
        operator_arguments=tuple((n, kinds.get(n, "torch.Tensor")) for n in names),
        input_gradients=_tuple(scope.names.gradient(i.name) if i.grad else "None" for i in ir.inputs),
        param_kinds=tuple(dict.fromkeys(kinds.values())),
        param_checks=tuple(_checks(scope)),
        public_parameters=tuple(_public(ir)),
        input_names=", ".join(inputs) + ("," if len(inputs) == 1 else ""),
        packed_inputs=_tuple(i.name for i in ir.inputs),
        packed_call_params=_tuple(p.name for p in ir.params),
        packed_params=_tuple(params),
        unpack_params=f"{_tuple(params)[1:-1]} = params" if params else "",
    )


def checked_divisors(ir: AttentionIR) -> tuple[Expr, ...]:
    """Integer divisors that params decide, perhaps with sizes: the call refuses a zero."""
    nodes = postorder(*ir.clauses)
    known = rates(*ir.clauses)
    found = dict.fromkeys(n.args[1] for n in nodes if n.op in (Op.FLOORDIV, Op.MOD))
    return tuple(d for d in found if known[d] is Rate.LAUNCH and any(leaves(d, op=Op.PARAM)))


def _checks(scope: Scope) -> Iterator[str]:
    """Lines that bring the params to their kinds and refuse a zero divisor."""
    ir = scope.ir
    for p in ir.params:
        yield f'{scope.names.own(p.name)} = {p.type.value}_param("{p.name}", {scope.names.own(p.name)})'
    divisors = checked_divisors(ir)
    block = scope.host.results(divisors)
    read = {word for line in (*block.lines, *block.results) for word in re.findall(r"\w+", line)}
    tensors = [f"inputs[{number}]" for number in range(len(ir.inputs))]
    for size in run_time_sizes(ir):
        if scope.names.own(size) in read:
            yield f"{scope.names.own(size)} = {size_of(ir, size, tensors)}"
    yield from block.lines
    for divisor, text in zip(divisors, block.results, strict=True):
        spec = print_expr(divisor, ir)
        name = spec if "\n" not in spec and len(spec) <= _WIDEST else "a divisor"
        yield f"if ({text}) == 0:" if " " in text else f"if {text} == 0:"
        yield f'    raise ValueError("{name} is 0, and the spec divides by it")'


def _public(ir: AttentionIR) -> Iterator[str]:
    yield from (i.name for i in ir.inputs)
    for p in ir.params:
        yield p.name if p.default is None else f"{p.name}={_number(p.default)}"


def _number(value: Scalar) -> str:
    return repr(value) if math.isfinite(value) else f'float("{value}")'


def _tuple(names: Iterable[str]) -> str:
    names = tuple(names)
    return f"({', '.join(names)}{',' if len(names) == 1 else ''})"
