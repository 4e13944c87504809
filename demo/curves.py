"""Two loss curves beside each other, as text."""

from __future__ import annotations

from collections.abc import Sequence


def running_means(values: Sequence[float], over: int = 20) -> list[float]:
    """The mean of each stretch of ``over`` values; shorter inputs have one mean, of all."""
    over = min(over, len(values))
    return [sum(values[i : i + over]) / over for i in range(len(values) - over + 1)]


def largest_deviation(kernel: Sequence[float], reference: Sequence[float], over: int = 20) -> float:
    """The largest relative difference between the two curves' running means."""
    pairs = zip(running_means(kernel, over), running_means(reference, over), strict=True)
    return max(abs(a - b) / abs(b) for a, b in pairs)


def plot(kernel: Sequence[float], reference: Sequence[float], width: int = 64, height: int = 14) -> str:
    """Both curves in one frame: ``k`` the kernel's, ``r`` the reference's, ``*`` where they fall together."""
    steps = len(kernel)
    low, high = min(*kernel, *reference), max(*kernel, *reference)
    span = (high - low) or 1.0
    columns = min(width, steps)
    grid = [[" "] * columns for _ in range(height)]
    for mark, curve in (("k", kernel), ("r", reference)):
        for column in range(columns):
            value = curve[column * (steps - 1) // max(1, columns - 1)]
            row = round((high - value) / span * (height - 1))
            grid[row][column] = mark if grid[row][column] == " " else "*"
    lines = [f"{high - span * i / (height - 1):6.2f} |{''.join(row)}" for i, row in enumerate(grid)]
    lines.append(f"{'':6} +{'-' * columns}")
    lines.append(f"{'':8}{'step 1':<{max(6, columns - len(str(steps)))}}{steps}")
    return "\n".join(lines)
