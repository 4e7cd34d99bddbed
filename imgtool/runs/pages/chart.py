"""Throughput over time, as an SVG within the page."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from imgtool.model.job import Flow
from imgtool.units import size

WIDTH, HEIGHT, TOP = 600, 100, 8
"""Of the drawing; it is stretched to its place."""


def chart(flow: Sequence[Flow]) -> str:
    """Nothing where nothing was read."""
    most = max((one.rate for one in flow), default=0)
    if not most:
        return ""
    points = _points([one.rate / most for one in flow])
    line = " L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    grid = "".join(f'<line class="grid" x1="0" x2="{WIDTH}" y1="{y}" y2="{y}"/>' for y in (TOP, (HEIGHT + TOP) // 2, HEIGHT))
    first, last = flow[0].start, flow[-1].start
    same = first[:10] == last[:10]
    ends = [one[11:19] if same else f"{one[5:10]} {one[11:16]}" for one in (first, last)]
    most_said, last_said = f"{size(most)}/s at most", f"{size(flow[-1].rate)}/s at last"
    label = f"throughput from {first} to {last}, at most {size(most)} a second"
    return (f'<h2>Throughput</h2><div class="card"><div class="axis quiet"><span>{most_said}</span><span>{last_said}</span></div>'
            f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="none" role="img" '
            f'aria-label="{escape(label)}">{grid}<path class="area" d="M0 {HEIGHT} L{line} L{WIDTH} {HEIGHT} Z"/>'
            f'<path class="curve" d="M{line}"/></svg><div class="axis quiet"><span>{escape(ends[0])}</span><span>'
            f"{escape(ends[1])} UTC</span></div></div>")


def _points(parts: Sequence[float]) -> list[tuple[float, float]]:
    """From the left end to the right one; a single value is a level line."""
    values = [*parts, parts[0]] if len(parts) == 1 else parts
    step = WIDTH / (len(values) - 1)
    return [(number * step, HEIGHT - value * (HEIGHT - TOP)) for number, value in enumerate(values)]
