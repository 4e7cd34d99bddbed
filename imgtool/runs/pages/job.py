"""The page about one job, made from its journal: for whoever asks what was done to the machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from imgtool import __version__, files
from imgtool.journal import events, jobs_folder
from imgtool.runs.pages.parts import document, table
from imgtool.units import size

Event = Mapping[str, Any]


def write_report(job: str, path: str) -> None:
    """Writes the page about ``job``, which has a result. Raises NoSpaceError, OSError."""
    files.put(path, page(list(events(jobs_folder() / f"{job}.jsonl"))).encode("utf-8", "surrogateescape"), replace=True)


def page(said: Sequence[Event]) -> str:
    """The HTML of the events of a job that is done, oldest first."""
    start = next((one for one in said if one["event"] == "start"), {})
    result = next(one["result"] for one in reversed(said) if one["event"] == "result")
    name = str(result["machine"])
    body = "".join((_head(name, start, result), _disks(result), _changes(result), _machines(said), _problems(result),
                    _timing(said), _foot(start)))
    return document(name, body)


def _head(name: str, start: Event, result: Event) -> str:
    verified = "what arrived was compared with what was read, and is the same" if result["verified"] else "not verified"
    state = f'<p class="good">Done in {result["seconds"]:.0f} s; {verified}.</p>'
    if result.get("started"):
        state += f"<p>Started: {escape(str(result['started']))}</p>"
    way = f"{start.get('source', '')} → {start.get('target', '')}"
    return f"<h1>{escape(name)}</h1><p>{escape(way)}</p>{state}"


def _disks(result: Event) -> str:
    rows = [(one["source"], one["destination"], size(one["virtual_size"]), size(one["bytes_read"]),
             one["checksum"] or "shared blocks") for one in result.get("disks", ())]
    return table("Disks", ("there", "here", "size", "read", "checksum (BLAKE2b)"), rows)


def _changes(result: Event) -> str:
    rows = [(one["where"], one["what"], one["why"]) for one in result.get("changes", ())]
    return table("Changes in the guest", ("where", "what", "why"), rows)


def _machines(said: Sequence[Event]) -> str:
    lines = next((one["lines"] for one in reversed(said) if one["event"] == "described"), ())
    rows = [(f"{line[0]} = {line[1]}" if line[0] else "", f"{line[3]} = {line[4]}" if line[3] else "", line[5]) for line in lines]
    return table("The machine, there and here", ("there", "here", "why"), rows)


def _problems(result: Event) -> str:
    rows = [(one["what"], one["hint"] or "") for one in result.get("problems", ())]
    rows += [(text, "") for text in result.get("warnings", ())]
    return table("To know", ("what", "what to do"), rows)


def _timing(said: Sequence[Event]) -> str:
    rows = [(one["verb"], str(one.get("disk") or one.get("machine") or ""), f"{one['seconds']:.1f} s", one["time"])
            for one in said if one["event"] == "end"]
    return table("Timing", ("step", "of", "took", "ended (UTC)"), rows)


def _foot(start: Event) -> str:
    job, user, host, when = (str(start.get(key, "")) for key in ("job", "user", "host", "time"))
    return f'<p class="quiet">imgtool {__version__}, job {escape(job)}, by {escape(user)} on {escape(host)}, {escape(when)}</p>'
