"""What pages are made of. Text is escaped here; what is called ``html`` has been."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from html import escape

STYLE = """
:root { color-scheme: light dark; --back: #f6f7f9; --card: #fff; --text: #1b2330; --quiet: #5d687a; --line: #dfe3ea;
  --running: #1f6feb; --done: #1a7f4b; --failed: #c4281c; --stopped: #a15c00; --waiting: #8b95a5; --cancelled: #6f5a8f;
  --area: #1f6feb26; }
@media (prefers-color-scheme: dark) { :root { --back: #0f1318; --card: #181e26; --text: #e5e9f0; --quiet: #9aa5b5;
  --line: #2b3442; --running: #6ea8ff; --done: #56c98a; --failed: #ff8278; --stopped: #f0b25c; --waiting: #7d8898;
  --cancelled: #b9a2dd; --area: #6ea8ff2e; } }
* { box-sizing: border-box }
body { font: 15px/1.5 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; margin: 0 auto; max-width: 76rem;
  padding: 1.25rem 1rem 3rem; color: var(--text); background: var(--back); font-variant-numeric: tabular-nums }
h1 { font-size: 1.5rem; margin: 0 } h2 { font-size: 1.1rem; margin: 2rem 0 .6rem } h3 { font-size: 1rem; margin: 0 }
p { margin: .25rem 0 } code { font: .88em ui-monospace, "DejaVu Sans Mono", monospace }
.quiet, dt, th { color: var(--quiet) } .good { color: var(--done) } .bad { color: var(--failed) }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: .9rem 1rem; min-width: 0;
  overflow-wrap: anywhere }
.cards { display: grid; gap: .8rem; grid-template-columns: repeat(auto-fill, minmax(min(21rem, 100%), 1fr)) }
.tiles { display: grid; gap: .6rem; grid-template-columns: repeat(auto-fit, minmax(6.2rem, 1fr)); margin: 1rem 0 .8rem }
.card.tile { border: 1px solid var(--line); border-top: 3px solid currentColor; padding: .5rem .7rem }
.tile b { display: block; font-size: 1.35rem; line-height: 1.25; white-space: nowrap }
.note { border-left: 4px solid var(--stopped); margin: 1rem 0 0 }
.cause { border-left: 4px solid var(--failed) } .cause p:first-child { font-weight: 600 }
.bar { display: block; width: 100%; height: .55rem; border-radius: .3rem; margin: .5rem 0; background: var(--line) }
.chart { display: block; width: 100%; height: 9rem }
.chart .area { fill: var(--area) } .chart .curve { fill: none; stroke: var(--running); stroke-width: 2 }
.chart .grid { stroke: var(--line) }
.chart path, .chart line { vector-effect: non-scaling-stroke }
.axis { display: flex; justify-content: space-between; gap: 1rem } .axis span:first-child { white-space: nowrap }
.axis span:last-child { text-align: right }
.state { display: inline-block; border: 1px solid; border-radius: 1rem; padding: 0 .55rem; font-size: .85em; white-space: nowrap }
.running { color: var(--running); fill: var(--running); border-color: var(--running) }
.done { color: var(--done); fill: var(--done); border-color: var(--done) }
.failed { color: var(--failed); fill: var(--failed); border-color: var(--failed) }
.stopped { color: var(--stopped); fill: var(--stopped); border-color: var(--stopped) }
.waiting { color: var(--waiting); fill: var(--waiting); border-color: var(--waiting) }
.cancelled { color: var(--cancelled); fill: var(--cancelled); border-color: var(--cancelled) }
.scroll { overflow-x: auto; padding: 0 } table { border-collapse: collapse; width: 100% }
th, td { text-align: left; vertical-align: top; padding: .45rem .7rem; border-bottom: 1px solid var(--line);
  overflow-wrap: anywhere } tbody tr:last-child td { border-bottom: 0 }
th { font-weight: 600; font-size: .88em; white-space: nowrap }
td.short { white-space: nowrap } td .bar { min-width: 6rem; margin: .3rem 0 }
footer { margin-top: 2rem; font-size: .88em }
@media (max-width: 44rem) { .tiles { grid-template-columns: repeat(3, minmax(0, 1fr)) }
  .tile b { font-size: 1.1rem }
  .stack thead { display: none } .stack tr { display: block; padding: .5rem 0; border-bottom: 1px solid var(--line) }
  .stack tbody tr:last-child { border-bottom: 0 }
  .stack td { display: flex; gap: .8rem; border: 0; padding: .12rem .9rem } .stack td:empty { display: none }
  .stack td::before { content: attr(data-head); flex: 0 0 4.6rem; color: var(--quiet); font-size: .88em }
  .stack td > div { flex: 1; min-width: 0 } td.short { white-space: normal } }
"""
STYLE_HASH = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
POLICY = f"default-src 'none'; style-src 'sha256-{STYLE_HASH}'; base-uri 'none'; form-action 'none'"
"""Content-Security-Policy: this style, and nothing else."""


def document(title: str, html: str, *, refresh: int | None = None) -> str:
    """A whole page. ``refresh``: seconds after which the browser asks again."""
    again = f'<meta http-equiv="refresh" content="{refresh}">' if refresh else ""
    return (f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta http-equiv="Content-Security-Policy" '
            f'content="{POLICY}"><meta name="viewport" content="width=device-width, initial-scale=1">'
            f'<meta name="referrer" content="no-referrer">{again}<title>{escape(title)} · imgtool</title>'
            f"<style>{STYLE}</style></head><body>{html}</body></html>\n")


def table(title: str, heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Nothing where there are no rows."""
    return html_table(title, heads, ([f"<td>{escape(str(cell))}</td>" for cell in row] for row in rows))


def html_table(title: str, heads: Sequence[str], rows: Iterable[Sequence[str]], kind: str = "") -> str:
    """``rows``: of cells that are HTML."""
    body = "".join(f"<tr>{''.join(row)}</tr>" for row in rows)
    if not body:
        return ""
    head = "".join(f"<th>{escape(one)}</th>" for one in heads)
    return (f'<h2>{escape(title)}</h2><div class="card scroll"><table class="{kind}"><thead><tr>{head}</tr></thead>'
            f"<tbody>{body}</tbody></table></div>")


def bar(parts: Mapping[str, int], total: int, label: str) -> str:
    """Lengths of a whole: class of the style → how much of ``total``."""
    at, pieces = 0.0, ""
    for kind, count in parts.items():
        width = 100 * count / total if total else 0
        pieces += f'<rect class="{kind}" x="{at:.2f}" y="0" width="{width:.2f}" height="10"/>'
        at += width
    return (f'<svg class="bar" viewBox="0 0 100 10" preserveAspectRatio="none" role="img" aria-label="{escape(label)}">'
            f"{pieces}</svg>")


def state(name: str) -> str:
    return f'<span class="state {escape(name)}">{escape(name)}</span>'
