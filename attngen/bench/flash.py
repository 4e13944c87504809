"""FlashAttention's own packages as peers, where installed, for the rows that their arguments can say."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from torch import Tensor

from attngen.bench.rows import Row
from attngen.ir.nodes import SCORE, TRUE, AttentionIR
from attngen.ir.types import Scalar
from attngen.pipeline import check_spec
from attngen.spec_file import find_spec


@dataclass(frozen=True)
class Package:
    """``module`` has flash_attn_func, of [batch, length, heads, dim]; ``takes`` names what it does beside
    masks."""

    module: str
    takes: frozenset[str]

    def missing(self) -> str:
        """Why it cannot be called, or nothing."""
        try:
            return "" if hasattr(importlib.import_module(self.module), "flash_attn_func") else "not installed"
        except ImportError:
            return "not installed"

    def refuses(self, row: Row) -> str:
        """Why it cannot run a row, or nothing."""
        if reason := self.missing():
            return reason
        said = _said(row)
        if isinstance(said, str):
            return said
        beyond = said.keys() - self.takes - {"causal", "window"}
        return f"takes no {', no '.join(sorted(beyond))}" if beyond else ""

    def prepare(
        self, row: Row, inputs: Mapping[str, Tensor], scale: float
    ) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
        """Its call of (q, k, v), [batch, heads, length, dim], for a row that it does not refuse."""
        call = importlib.import_module(self.module).flash_attn_func
        said = _said(row)
        assert not isinstance(said, str)
        given: dict[str, Any] = {"softmax_scale": scale, "causal": bool(said.get("causal"))}
        if "window" in said:
            given["window_size"] = (said["window"] - 1, 0)
        if "softcap" in said:
            given["softcap"] = said["softcap"]
        if "dropout" in said:
            given["dropout_p"] = said["dropout"]
        if "alibi" in said:
            given["alibi_slopes"] = inputs[said["alibi"]]

        def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            found = call(*(x.transpose(1, 2) for x in (q, k, v)), **given)
            out: Tensor = found[0] if isinstance(found, tuple) else found  # some return the log-sum-exp, too
            return out.transpose(1, 2)

        return attend


PACKAGES = {
    "flash2": Package("flash_attn", frozenset({"softcap", "alibi", "dropout"})),
    "flash3": Package("flash_attn_interface", frozenset({"softcap"})),
    "flash4": Package("flash_attn.cute", frozenset({"softcap"})),
}


@cache
def zoo_ir(name: str, consts: tuple[tuple[str, Scalar], ...] = ()) -> AttentionIR:
    """What a spec of the zoo means, with these consts: IRs of equal parts say the same."""
    return check_spec(find_spec(name), overrides=dict(consts)).ir


def _said(row: Row) -> dict[str, Any] | str:
    """A row in FlashAttention's words: causal, window (keys that a query sees, itself among them), softcap,
    dropout, alibi (the input with the slopes). Or why that is not possible."""
    ir = check_spec(find_spec(row.spec), overrides=dict(row.consts)).ir
    said: dict[str, Any] = {"dropout": row.dropout} if row.dropout else {}
    if ir.mask != TRUE:
        said["causal"] = True
    if (
        "window" in row.consts
        and ir.mask == zoo_ir("sliding_window", (("window", row.consts["window"]),)).mask
    ):
        said["window"] = row.consts["window"]
    elif ir.mask not in (TRUE, zoo_ir("causal").mask):
        return "takes no such mask"
    if ir.final_score == zoo_ir("softcap").final_score:
        default = next(p.default for p in ir.params if p.name == "cap")
        said["softcap"] = row.params.get("cap", default)
    elif ir.final_score == zoo_ir("alibi").final_score:
        said["alibi"] = "slopes"
    elif ir.final_score is not SCORE:
        return "takes no such score"
    return "no sink" if ir.sink is not None else said if ir.is_softmax else "softmax alone"
