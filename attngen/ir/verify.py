"""What every AttentionIR holds to, checked after each pass. A VerifyError is a defect of the compiler."""

from __future__ import annotations

import math

from attngen.ir.nodes import CORNERS, POSITIONS, AttentionIR, Expr, Input, Normalize, Op, postorder
from attngen.ir.types import DTYPES, Type, type_of
from attngen.ir.vectors import pair_misfit, vector_misfit

MAX_NODES = 5_000


class VerifyError(Exception):
    """An IR breaks an invariant; the text says which."""


def verify(ir: AttentionIR, most: int = MAX_NODES) -> None:
    """Raise VerifyError unless ``ir`` is well formed: types, declared names, bounds, words of each clause.

    ``most`` is the bound of nodes; a pass may add some to those of the spec.
    """
    _check_clauses(ir)
    nodes = postorder(*ir.clauses)
    _require(len(nodes) <= most, f"{len(nodes)} nodes, more than {most}")
    inputs = {i.name: i for i in ir.inputs}
    params = {p.name: p for p in ir.params}
    _require(len(inputs) == len(ir.inputs) and len(params) == len(ir.params), "a name is declared twice")
    for tensor in ir.inputs:
        _check_input(tensor)
    for name, parameter in params.items():
        default = parameter.default
        _require(default is None or type_of(default) is parameter.type, f"default of {name} is {default!r}")
    sizes = {d for i in ir.inputs for d in i.dims if isinstance(d, str)}
    for node in nodes:
        _check_node(node, inputs, sizes)
        if node.op is Op.PARAM:
            known = params.get(str(node.value))
            _require(known is not None and known.type is node.type, f"undeclared param {node.value!r}")


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise VerifyError(otherwise)


def _check_clauses(ir: AttentionIR) -> None:
    _require(ir.mask.type is Type.BOOL, "the mask is not a bool")
    floats = {"scale": ir.scale, "bias": ir.bias, "weight": ir.weight, "sink": ir.sink, "dropout": ir.dropout}
    floats.update({f"score[{i}]": s for i, s in enumerate(ir.score)})
    for name, clause in floats.items():
        _require(clause is None or clause.type is Type.FLOAT, f"{name} is not a float")
    _require((ir.bias is not None) == (ir.normalize is Normalize.SIGMOID), "only the sigmoid has a bias")
    _require(ir.sink is None or ir.is_softmax, "only the softmax has a sink")
    _require(all(node.op is not Op.WEIGHT for node in postorder(*ir.score)), "a score uses the weight")
    for name in ("scale", "mask", "bias", "weight", "sink", "dropout"):
        clause = ir.mask if name == "mask" else floats[name]
        if clause is None:
            continue
        for node in postorder(clause):
            _require(node.op is not Op.SCORE, f"{name} uses the score")
            _require(name == "weight" or node.op is not Op.WEIGHT, f"{name} uses the weight")
            _require(node.op is not Op.DOT, f"{name} uses a product of rows")
            position = node.op is Op.WORD and node.value in POSITIONS
            heads = node.value in ("b", "h", "h_kv") and name != "dropout"
            _require(name in ("mask", "weight") or not position or heads, f"{name} uses {node.value}")
            _require(name != "dropout" or node.op is not Op.LOAD, f"dropout uses {node.value}")


def _check_input(tensor: Input) -> None:
    _require(tensor.dtype in DTYPES, f"input {tensor.name} has the dtype {tensor.dtype!r}")
    for dim in tensor.dims:
        _require(isinstance(dim, str) or dim >= 1, f"input {tensor.name} has the dim {dim!r}")
    kind = DTYPES[tensor.dtype]
    _require(not tensor.grad or kind is Type.FLOAT, f"input {tensor.name} has a gradient and no float")
    sortable = kind is Type.INT and bool(tensor.dims)
    _require(not tensor.sorted or sortable, f"input {tensor.name} is sorted and has no order")


def _check_node(node: Expr, inputs: dict[str, Input], sizes: set[str]) -> None:
    if node.op is Op.LOAD:
        tensor = inputs.get(str(node.value))
        _require(tensor is not None, f"undeclared input {node.value!r}")
        if tensor is not None:
            _require(
                len(node.args) == len(tensor.dims), f"{tensor.name} is read with {len(node.args)} indices"
            )
            _require(node.type is DTYPES[tensor.dtype], f"{tensor.name} is read as {node.type.value}")
    elif node.op is Op.VECTOR:
        tensor = inputs.get(str(node.value))
        misfit = "undeclared" if tensor is None else vector_misfit(tensor, node.args)
        _require(misfit is None, f"{node.value} is read as a vector: {misfit}")
    elif node.op is Op.DOT:
        x, y = (inputs[str(a.value)] for a in node.args)
        _require(pair_misfit(x, y, (node.args[0], node.args[1])) is None, f"{node!r} is no matrix product")
    elif node.op is Op.WORD:
        _require(node.value not in CORNERS, f"the clauses use the corner {node.value}")
    elif node.op is Op.SIZE:
        _require(node.value in sizes, f"no dim has the size {node.value!r}")
    elif node.op is Op.CONST:
        fits = not isinstance(node.value, float) or not math.isnan(node.value)
        _require(fits, "a constant is NaN")
