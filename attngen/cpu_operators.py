"""What an emitted module's operators do with CPU tensors where Triton's interpreter is off: row blocks.

forward_operator(q, k, v, slopes)   ->   blockwise.Call(...).forward(q, k, v, slopes)

They stay operators, so one set of checks and one autograd formula serve both ways, and torch.compile sees an
operator, not the blocks, whose number depends on the lengths.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType
from typing import Any

from torch import Tensor

from attngen.blockwise import Call
from attngen.ir.nodes import AttentionIR

_log = logging.getLogger("attngen")
_registered: set[str] = set()
_said: set[str] = set()


def register(module: ModuleType, ir: AttentionIR) -> None:
    """Give the module's operators their CPU implementation, once."""
    if module.__name__ in _registered:
        return
    _registered.add(module.__name__)
    operators = _Operators(module, ir)
    module.forward_operator.register_kernel("cpu")(operators.forward)
    module.backward_operator.register_kernel("cpu")(operators.backward)


class _Operators:
    """The two operators of a module; their arguments are the emitted operators' own."""

    def __init__(self, module: ModuleType, ir: AttentionIR) -> None:
        self._module = module
        self._ir = ir

    def forward(self, *arguments: Any) -> Tensor | tuple[Tensor, ...]:
        call, tensors, _ = self._read(arguments)
        if self._ir.name not in _said:
            _said.add(self._ir.name)
            _log.warning(
                "%s: CPU tensors and no TRITON_INTERPRET=1: running the same maths in PyTorch, in row blocks",
                self._ir.name,
            )
        room = self._module.empty_forward(tensors[0], tensors[2])
        found = call.forward(*tensors)
        if found[1] is None:
            room.copy_(found[0])
            filled: Tensor = room
            return filled
        out, lse, parts = room
        # The kernels' backward reads the parts, this one does not.
        return out.copy_(found[0]), lse.copy_(found[1]), parts.zero_()

    def backward(self, *arguments: Any) -> tuple[Tensor, ...]:
        call, tensors, rest = self._read(arguments)
        if isinstance(rest[0], bool):  # whether deterministic, which this always is
            rest = rest[1:]
        d_lse = None
        if self._ir.is_softmax:
            _, _, _, d_out, d_lse, *rest = rest
        else:
            d_out, *rest = rest
        needs_q, needs_kv, *learned = rest
        grads = [i.grad for i in self._ir.inputs]
        room = self._module.empty_backward(*tensors[:3], needs_q, needs_kv)
        if learned:
            named = [x for x, grad in zip(tensors[3:], grads, strict=True) if grad]
            room = (*room, *self._module.empty_learned(*named, *learned))
        wanted = [needs_q, needs_kv, needs_kv, *(grad and learned[0] for grad in grads)]
        # torch runs an operator's kernel beneath autograd, where nothing is recorded: a new thread is not.
        with ThreadPoolExecutor(1) as thread:
            found = thread.submit(call.gradients, tensors, wanted, d_out, d_lse).result()
        results = [x for x, has_room in zip(found, [True, True, True, *grads], strict=True) if has_room]
        for target, result in zip(room, results, strict=True):
            if result is not None:
                target.copy_(result)
        return tuple(room)

    def _read(self, arguments: Sequence[Any]) -> tuple[Call, Sequence[Tensor], Sequence[Any]]:
        """The call, its tensors (q, k, v and the inputs), and the arguments after the params."""
        names = tuple(i.name for i in self._ir.inputs)
        tensors, rest = arguments[: 3 + len(names)], arguments[3 + len(names) :]
        seed = 0
        if self._ir.dropout is not None:
            seed, rest = int(rest[0].item()), rest[1:]
        params = {p.name: value for p, value in zip(self._ir.params, rest, strict=False)}
        return Call(self._ir, names, params, seed), tensors, rest[len(params) :]
