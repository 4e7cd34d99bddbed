"""One self-contained page about a job, made from its journal: for whoever asks what was done to the machine.

All that stands in it is escaped: names come from strangers. It loads nothing from anywhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from imgtool import __version__, files
from imgtool.errors import UsageError
from imgtool.journal import events, state_folder

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem; color: #1c2430; }
h1 { font-size: 1.6rem; margin-bottom: 0 } h2 { font-size: 1.15rem; margin-top: 2rem }
table { border-collapse: collapse; width: 100%; } th, td { text-align: left; vertical-align: top; padding: .3rem .6rem;
border-bottom: 1px solid #dde2ea; overflow-wrap: anywhere } th { background: #f3f5f9 }
.good { color: #14713b } .bad { color: #b3261e } .quiet { color: #667085 } code { font: 13px ui-monospace, monospace }
@media (prefers-color-scheme: dark) { body { background: #14181f; color: #e4e7ec } th { background: #1f2530 }
th, td { border-color: #303846 } .good { color: #5fd08e } .bad { color: #ff8a80 } .quiet { color: #98a2b3 } }
"""
Event = Mapping[str, Any]


def write_report(job: str, path: str) -> None:
    """Writes the page about ``job``. Raises UsageError if there is no such job, NoSpaceError."""
    journal = state_folder() / "jobs" / f"{job}.jsonl"
    if not journal.is_file():
        raise UsageError(f"there is no job {job}", "imgtool jobs lists them")
    files.put(path, page(list(events(journal))).encode("utf-8", "surrogateescape"), replace=True)


def page(said: Sequence[Event]) -> str:
    """The HTML of a job's events, oldest first."""
    start = next((one for one in said if one["event"] == "start"), {})
    result = next((one["result"] for one in reversed(said) if one["event"] == "result"), None)
    name = (result or {}).get("machine") or start.get("machine") or start.get("job", "a job")
    body = "".join((_head(str(name), start, said, result), _disks(result), _changes(result), _machines(said), _problems(result),
                    _timing(said), _foot(start)))
    return (f'<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
            f"<title>{escape(str(name))}: imgtool</title><style>{STYLE}</style></head><body>{body}</body></html>\n")


def _head(name: str, start: Event, said: Sequence[Event], result: Event | None) -> str:
    failed = next((one for one in reversed(said) if one["event"] in ("failed", "done")), {})
    if result is None:
        state = f'<p class="bad">Not finished: {escape(str(failed.get("error", "it was stopped")))}</p>'
    else:
        verified = "what arrived was compared with what was read, and is the same" if result["verified"] else "not verified"
        state = f'<p class="good">Done in {result["seconds"]:.0f} s; {verified}.</p>'
        if result.get("started"):
            state += f"<p>Started: {escape(str(result['started']))}</p>"
    way = f"{start.get('source', '')} → {start.get('target', '')}"
    return f"<h1>{escape(name)}</h1><p>{escape(way)}</p>{state}"


def _disks(result: Event | None) -> str:
    rows = [(one["source"], one["destination"], _size(one["virtual_size"]), _size(one["bytes_read"]),
             one["checksum"] or "shared blocks") for one in (result or {}).get("disks", ())]
    return _table("Disks", ("there", "here", "size", "read", "checksum (BLAKE2b)"), rows)


def _changes(result: Event | None) -> str:
    rows = [(one["where"], one["what"], one["why"]) for one in (result or {}).get("changes", ())]
    return _table("Changes in the guest", ("where", "what", "why"), rows)


def _machines(said: Sequence[Event]) -> str:
    lines = next((one["lines"] for one in reversed(said) if one["event"] == "described"), ())
    rows = [(f"{line[0]} = {line[1]}" if line[0] else "", f"{line[3]} = {line[4]}" if line[3] else "", line[5]) for line in lines]
    return _table("The machine, there and here", ("there", "here", "why"), rows)


def _problems(result: Event | None) -> str:
    rows = [(one["what"], one["hint"] or "") for one in (result or {}).get("problems", ())]
    rows += [(text, "") for text in (result or {}).get("warnings", ())]
    return _table("To know", ("what", "what to do"), rows)


def _timing(said: Sequence[Event]) -> str:
    rows = [(one["verb"], str(one.get("disk") or one.get("machine") or ""), f"{one['seconds']:.1f} s", one["time"])
            for one in said if one["event"] == "end"]
    return _table("Timing", ("step", "of", "took", "ended (UTC)"), rows)


def _foot(start: Event) -> str:
    job, user, host, when = (str(start.get(key, "")) for key in ("job", "user", "host", "time"))
    return f'<p class="quiet">imgtool {__version__}, job {escape(job)}, by {escape(user)} on {escape(host)}, {escape(when)}</p>'


def _table(title: str, heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    cells = "".join("<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows)
    if not cells:
        return ""
    head = "".join(f"<th>{escape(one)}</th>" for one in heads)
    return f"<h2>{escape(title)}</h2><table><thead><tr>{head}</tr></thead><tbody>{cells}</tbody></table>"


def _size(count: int) -> str:
    return f"{count / (1 << 30):.2f} GiB" if count >= 1 << 28 else f"{count / (1 << 20):.1f} MiB"
