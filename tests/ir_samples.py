"""Variants built by hand from IR nodes: what tests of the oracle use, so that they need no parser."""

from __future__ import annotations

from typing import Any

from attngen.ir.nodes import SCORE, AttentionIR, Expr, Input, Op, Param, const, load, make, param, word
from attngen.ir.types import Type

Q, K, POS, B, H = (word(n) for n in ("q", "k", "pos", "b", "h"))
DIST = make(Op.SUB, POS, K)
SCALE = make(Op.DIV, const(1.0), make(Op.SQRT, make(Op.TO_FLOAT, word("head_dim"))))
CAUSAL = make(Op.LE, const(0), DIST)


def variant(name: str, **parts: Any) -> AttentionIR:
    return AttentionIR(name, parts.pop("scale", SCALE), **parts)


def real(x: Expr) -> Expr:
    return make(Op.TO_FLOAT, x)


def full() -> AttentionIR:
    return variant("full")


def causal() -> AttentionIR:
    return variant("causal", mask=CAUSAL)


def alibi() -> AttentionIR:
    slope = load("slopes", Type.FLOAT, (H,))
    score = make(Op.SUB, SCORE, make(Op.MUL, slope, real(make(Op.ABS, DIST))))
    return variant("alibi", score=(score,), mask=CAUSAL, inputs=(Input("slopes", "float32", ("heads",)),))


def softcap() -> AttentionIR:
    cap = param("cap", Type.FLOAT)
    score = make(Op.MUL, cap, make(Op.TANH, make(Op.DIV, SCORE, cap)))
    return variant("softcap", score=(score,), params=(Param("cap", Type.FLOAT, 50.0),))


def window(n: int = 16) -> AttentionIR:
    return variant("window", mask=make(Op.AND, CAUSAL, make(Op.LT, DIST, const(n))))


def prefix() -> AttentionIR:
    seen = make(Op.LT, K, load("prefix", Type.INT, (B,)))
    return variant("prefix", mask=make(Op.OR, CAUSAL, seen), inputs=(Input("prefix", "int32", ("batch",)),))


def documents() -> AttentionIR:
    same = make(Op.EQ, load("doc", Type.INT, (B, POS)), load("doc", Type.INT, (B, K)))
    doc = Input("doc", "int32", ("batch", "k_len"), sorted=True)
    return variant("documents", mask=make(Op.AND, CAUSAL, same), inputs=(doc,))


def dropped() -> AttentionIR:
    p = param("p", Type.FLOAT)
    return variant("dropped", mask=CAUSAL, dropout=p, params=(Param("p", Type.FLOAT, 0.1),))


def sink() -> AttentionIR:
    sinks = Input("sinks", "float32", ("heads",), grad=True)
    return variant("sink", mask=CAUSAL, sink=load("sinks", Type.FLOAT, (H,)), inputs=(sinks,))


def learned_bias() -> AttentionIR:
    """A table indexed by head and by distance, as T5's."""
    reach = const(31)
    bucket = make(Op.CLAMP, make(Op.ADD, DIST, const(15)), const(0), reach)
    score = make(Op.ADD, SCORE, load("table", Type.FLOAT, (H, bucket)))
    table = Input("table", "float32", ("heads", 32), grad=True)
    return variant("learned_bias", score=(score,), inputs=(table,))


def dense_bias() -> AttentionIR:
    score = make(Op.ADD, SCORE, load("bias", Type.FLOAT, (B, H, Q, K)))
    bias = Input("bias", "float32", ("batch", "heads", "q_len", "k_len"), grad=True)
    return variant("dense_bias", score=(score,), inputs=(bias,))


ALL = (
    full,
    causal,
    alibi,
    softcap,
    window,
    prefix,
    documents,
    dropped,
    sink,
    learned_bias,
    dense_bias,
)
