"""bench/results.svg: a bar for each ratio, on a logarithmic scale, with a mark where it must reach."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from math import log10

from bench.case import Outcome

LABEL, WIDTH, HEIGHT = 420, 520, 18
"""Pixels: of the words on the left, of the scale, of a bar with the space around it."""
LOW, HIGH = 0.1, 1000.0
KEPT, MISSED, MARK = "#2f7d4f", "#b3402e", "#222222"

Bar = tuple[str, float, float | None]
"""Words, ratio, what is required."""


def bars(outcomes: Sequence[Outcome]) -> list[Bar]:
    """One for each family that something is required against, or for the first."""
    found: list[Bar] = []
    for done in outcomes:
        wanted = {bound.family: bound.ratio for bound in done.case.bounds}
        for family in (wanted or done.families()[:1]):
            ratio = done.ratio(family)
            if ratio is not None:
                found.append((f"{done.case.name} ({family})", ratio, wanted.get(family)))
    return found


def position(ratio: float) -> float:
    """Pixels from the left; what is beyond the scale stands at its end."""
    at = (log10(min(max(ratio, LOW), HIGH)) - log10(LOW)) / (log10(HIGH) - log10(LOW))
    return LABEL + at * WIDTH


def svg(found: Sequence[Bar]) -> str:
    height = (len(found) + 2) * HEIGHT
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{LABEL + WIDTH + 80}" height="{height}" '
             'font-family="sans-serif" font-size="11">', '<rect width="100%" height="100%" fill="white"/>']
    for tick in (0.1, 1.0, 10.0, 100.0, 1000.0):
        x = position(tick)
        parts.append(f'<line x1="{x:.1f}" y1="{HEIGHT}" x2="{x:.1f}" y2="{height - HEIGHT}" stroke="#cccccc"/>'
                     f'<text x="{x:.1f}" y="12" text-anchor="middle">{tick:g}</text>')
    for number, bar in enumerate(found, 1):
        parts += _bar(number * HEIGHT, *bar)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _bar(top: int, words: str, ratio: float, required: float | None) -> list[str]:
    """From 1 × to the ratio."""
    one, end = sorted((position(1.0), position(ratio)))
    colour = MISSED if required is not None and ratio < required else KEPT
    parts = [f'<text x="{LABEL - 8}" y="{top + 13}" text-anchor="end">{escape(words)}</text>',
             f'<rect x="{one:.1f}" y="{top + 3}" width="{max(1.0, end - one):.1f}" height="{HEIGHT - 6}" fill="{colour}"/>',
             f'<text x="{max(end, position(1.0)) + 5:.1f}" y="{top + 13}">{ratio:.2f}</text>']
    if required is not None:
        x = position(required)
        parts.append(f'<line x1="{x:.1f}" y1="{top}" x2="{x:.1f}" y2="{top + HEIGHT}" stroke="{MARK}" stroke-width="2"/>')
    return parts
