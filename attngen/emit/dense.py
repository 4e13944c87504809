"""The input that comes to the kernels for sm_90 in tiles, and the maths that takes its tile as it takes dot.

score = score + bias[b, h, q, k]   ->   bias_b_h_q_k = dense_tile(...)
                                        logit = tile_logits(dot, scale_log2, bias_b_h_q_k)
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from attngen.emit.maths import make_dense_maths
from attngen.emit.scope import Scope
from attngen.emit.view import Context, DenseView, Maths, Tiles
from attngen.plan.dense import Dense

_RANK = 4  # of the tensors that tiles are copied from


@dataclass(frozen=True)
class _Words:
    """Where along the leading dimensions of the tensor a program's tiles lie."""

    dense: Dense

    @property
    def padding(self) -> int:
        """Dimensions of size 1 before its own."""
        return _RANK - len(self.dense.input.dims)

    def place_in(self, tensor: str) -> str:
        """The indices of what is not query and key; a dimension of size 1 broadcasts."""
        words = [*("0",) * self.padding, *(str(i.value) for i in self.dense.load.args[:-2])]
        texts = (w if w == "0" else f"gl.minimum({w}, {tensor}.shape[{n}] - 1)" for n, w in enumerate(words))
        return ", ".join(texts)

    @property
    def is_shared(self) -> str:
        """Whether all of the batch read the same tiles."""
        axis = self.dense.batch_axis
        return "True" if axis is None else f"Dense.shape[{axis + self.padding}] == 1"


def make_dense(scope: Scope, maths: Maths) -> tuple[DenseView | None, Maths]:
    """The view, and the maths of the kernels that get the tiles; ``maths`` itself where no input comes so."""
    hopper = scope.plan.backend.hopper
    dense = hopper.dense if hopper else None
    if dense is None:
        return None, maths
    words, made = _Words(dense), make_dense_maths(scope, maths, dense.load)
    view = DenseView(
        tile=scope.names.part(dense.load),
        input=scope.names.own(dense.input.name),
        functions=tuple(f for f in made.functions if f not in maths.functions),
        place=words.place_in("Dense"),
        gradient_place=words.place_in("DDense"),
        is_shared=words.is_shared,
    )
    return view, made


def without_tile(tiles: Tiles, dense: DenseView | None) -> Tiles:
    """The lines of the kernels that get the tiles: no loop takes them from its kernel."""

    def freed(context: Context) -> Context:
        return replace(context, context=tuple(n for n in context.context if dense is None or n != dense.tile))

    forward, dkdv, fused = map(freed, (tiles.forward, tiles.dkdv, tiles.fused))
    return replace(tiles, forward=forward, dkdv=dkdv, fused=fused)
