"""Runs a batch as a user would, kills it, and counts from its audit what was done."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.program import ENVIRONMENT

PATIENCE = 90
"""Seconds after which what is waited for will not come."""


def audit(state: Path) -> list[dict[str, Any]]:
    path = state / "audit.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def until(what: Callable[[], Any], why: str, *, seconds: float = PATIENCE) -> Any:
    """What ``what`` gives, once that is true."""
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end, f"waited in vain: {why}"
        time.sleep(0.05)
    return found


@contextmanager
def started(*args: object, log: Path) -> Iterator[subprocess.Popen[str]]:
    """`imgtool ARGS` in a process group of its own, which is gone at the end."""
    with log.open("a") as out:
        process = subprocess.Popen([sys.executable, "-m", "imgtool", *map(str, args)], env=ENVIRONMENT, text=True, stdout=out,
                                   stderr=subprocess.STDOUT, start_new_session=True)
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def events(state: Path, *kinds: str) -> list[dict[str, Any]]:
    return [one for one in audit(state) if one["event"] in kinds]


@dataclass
class Count:
    """What an audit says, put together."""

    most: int = 0
    """Steps at once, of one worker."""
    most_of_host: dict[str, int] = field(default_factory=dict)
    """Migrations at once from a host, over all workers."""
    redone: list[str] = field(default_factory=list)
    """Work that was finished, and done once more."""
    interrupted: int = 0
    """Steps that were under way when their worker was killed."""


def count(said: list[dict[str, Any]]) -> Count:
    open_: dict[str, dict[str, Any]] = {}
    done, found, again = set[str](), Count(), set[str]()
    for one in said:
        if one["event"] == "worker":
            gone = [work for work, begun in open_.items() if begun["worker"] == one["worker"]]
            found.interrupted += len(gone)
            for work in gone:
                del open_[work]
        elif one["event"] == "begin":
            again |= {one["work"]} & done
            open_[one["work"]] = one
        elif one["event"] in ("end", "failed", "stopped"):
            open_.pop(one["work"], None)
            if one["event"] == "end":
                if one["work"] in again and not one["result"].get("kept"):
                    found.redone.append(one["work"])
                done.add(one["work"])
        for worker in {begun["worker"] for begun in open_.values()}:
            found.most = max(found.most, sum(begun["worker"] == worker for begun in open_.values()))
        hosts = [begun["source_host"] for begun in open_.values() if begun["part"].endswith("-migrate")]
        for host in hosts:
            found.most_of_host[host] = max(found.most_of_host.get(host, 0), hosts.count(host))
    return found
