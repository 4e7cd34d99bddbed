"""What the tests read out of the documents: fenced blocks, commands with what they print, links, anchors."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.program import ROOT

FENCE = re.compile(r"^```(?P<language>\w*)(?: +title=\"(?P<title>[^\"]+)\")? *\n(?P<text>.*?)^``` *$", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\[[^\]\n]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#{1,6} +(.+?) *$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """``language``, and the name of the file that it is, if it is one."""

    language: str
    title: str | None
    text: str


@dataclass(frozen=True)
class Command:
    """What is typed, and the lines that the document shows below it."""

    text: str
    shown: tuple[str, ...]


def documents() -> list[Path]:
    """All that a person reads of this project."""
    return [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(path: Path) -> list[Block]:
    return [Block(**found.groupdict()) for found in FENCE.finditer(path.read_text(encoding="utf-8"))]


def commands(text: str) -> Iterator[Command]:
    """Of a block with ``$ `` prompts; a backslash at the end of a line goes on in the next."""
    typed: str | None = None
    shown: list[str] = []
    for line in text.splitlines():
        if typed is not None and typed.endswith("\\") and not shown:
            typed += "\n" + line
        elif line.startswith("$ "):
            if typed is not None:
                yield Command(typed, tuple(shown))
            typed, shown = line[2:], []
        else:
            shown.append(line)
    if typed is not None:
        yield Command(typed, tuple(shown))


def prose(path: Path) -> str:
    """Without the fenced blocks."""
    return FENCE.sub("", path.read_text(encoding="utf-8"))


def links(path: Path) -> list[str]:
    """Targets that are no addresses of the web."""
    found = LINK.findall(SPAN.sub("", prose(path)))
    return [target for target in found if "://" not in target and not target.startswith("mailto:")]


def anchors(path: Path) -> set[str]:
    """Of its headings, as the site and code hosts make them."""
    return {re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", heading.lower().replace("`", "")).strip())
            for heading in HEADING.findall(prose(path))}
