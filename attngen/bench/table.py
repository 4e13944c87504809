"""Measurements as text: one Markdown table a shape, two lines a row (forward, backward)."""

from __future__ import annotations

from collections.abc import Sequence

from attngen.bench.measure import LIMIT, Outcome, RowResult

RATIOS = {"flex": "vs Flex", "cudnn": "vs cuDNN"}


def columns(cells: Sequence[Sequence[str]], *, left: int = 1) -> str:
    """A Markdown table that also reads well as plain text. The first ``left`` columns align left."""
    widths = [max(2, *(len(row[i]) for row in cells)) for i in range(len(cells[0]))]
    lines = []
    for number, row in enumerate(cells):
        padded = [
            c.ljust(w) if i < left else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("| " + " | ".join(padded) + " |")
        if number == 0:
            rules = ["-" * w if i < left else "-" * (w - 1) + ":" for i, w in enumerate(widths)]
            lines.append("| " + " | ".join(rules) + " |")
    return "\n".join(lines)


def peers_table(results: Sequence[RowResult], peers: Sequence[tuple[str, str]]) -> str:
    """``ms (TFLOP/s)`` of each peer (name, title), and how many times faster attngen is than two of them."""
    ratios = {name: title for name, title in RATIOS.items() if name in dict(peers)}
    head = ["variant", "pass", *(title for _, title in peers), *ratios.values()]
    cells = [head]
    for result in results:
        for name, work in (("forward", result.forward_flops), ("backward", result.backward_flops)):
            ms = {peer: _ms(result.outcomes.get(peer), name) for peer, _ in peers}
            cells.append(
                [
                    result.title if name == "forward" else "",
                    name,
                    *(_cell(ms[peer], work) for peer, _ in peers),
                    *(_ratio(ms.get("attngen"), ms[peer]) for peer in ratios),
                ]
            )
    return columns(cells, left=2)


def preparation_table(results: Sequence[RowResult], peers: Sequence[tuple[str, str]]) -> str:
    """Memory of each peer (MiB above the inputs, forward and backward), and what some make beforehand.

    "" where no peer makes anything and no memory was measured. What is made for each mask and length is
    milliseconds and the most MiB held; a peer that makes nothing has no column for it. Where the memory is
    not enough, it says so, and how long making it in less took.
    """
    builders = [
        (name, title)
        for name, title in peers
        if any(_is_built(r.outcomes[name]) for r in results if name in r.outcomes)
    ]
    measured = any(o.peak_mib is not None for r in results for o in r.outcomes.values())
    if not builders and not measured:
        return ""
    cells = [
        [
            "variant",
            *(f"{title} MiB" for _, title in peers if measured),
            *(head for _, title in builders for head in (f"{title} block mask, ms", "and MiB")),
        ]
    ]
    for result in results:
        line = [result.title]
        if measured:
            line += [_number(result.outcomes.get(name), "peak_mib") for name, _ in peers]
        for name, _ in builders:
            outcome = result.outcomes.get(name)
            line += [_built(outcome), _number(outcome, "build_mib")]
        cells.append(line)
    return columns(cells)


def _is_built(outcome: Outcome) -> bool:
    return outcome.build_ms is not None or bool(outcome.build_note)


def _built(outcome: Outcome | None) -> str:
    note = "" if outcome is None else outcome.build_note
    if outcome is None or outcome.build_ms is None:
        return note or "-"
    return f"{note}; compiled {outcome.build_ms:.1f}" if note else f"{outcome.build_ms:.1f}"


def _number(outcome: Outcome | None, name: str) -> str:
    value = None if outcome is None else getattr(outcome, name)
    return "-" if value is None else f"{value:.1f}"


def checks_table(results: Sequence[RowResult]) -> str:
    """The largest relative error of attngen's out, dq, dk and dv against each yardstick."""
    yardsticks = list(dict.fromkeys(name for result in results for name in result.errors))
    cells = [["variant", *yardsticks, f"< {LIMIT:g}"]]
    for result in results:
        worst = [max(result.errors[y].values()) if y in result.errors else None for y in yardsticks]
        cells.append(
            [
                result.title,
                *("-" if w is None else f"{w:.1e}" for w in worst),
                ("yes" if result.agrees else "NO") if result.is_compared else "not compared",
            ]
        )
    return columns(cells)


def reasons(results: Sequence[RowResult], *, but: Sequence[str] = ()) -> list[str]:
    """Why a cell is empty, a line each; not the reasons that are known beforehand (``but``)."""
    return [
        f"{result.shape} {result.title}: {name}: {outcome.reason}"
        for result in results
        for name, outcome in result.outcomes.items()
        if outcome.reason and outcome.reason not in but
    ]


def _ms(outcome: Outcome | None, name: str) -> float | None:
    if outcome is None:
        return None
    return outcome.forward_ms if name == "forward" else outcome.backward_ms


def _cell(ms: float | None, work: float) -> str:
    return "-" if ms is None else f"{ms:.3f} ({work / ms / 1e9:.0f})"


def _ratio(mine: float | None, theirs: float | None) -> str:
    return "-" if mine is None or theirs is None else f"{theirs / mine:.2f}x"
