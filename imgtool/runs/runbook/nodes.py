"""YAML → nodes that know where they stand. It may be a stranger's: no aliases, no tags, bounded in size and depth."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from imgtool.errors import UsageError

if TYPE_CHECKING:
    import yaml

MAX_SIZE = 8 << 20
"""Bytes of a runbook: some 50,000 machines."""
MAX_DEPTH = 16
"""Of mappings and lists in each other."""


@dataclass(frozen=True)
class Complaint:
    """Something in a file that is not as it must be."""

    file: str
    line: int
    column: int
    what: str
    """What is there, and what was expected."""
    hint: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}: {self.what}"


class RunbookError(UsageError):
    """All that is wrong in a runbook, in the order in which it stands there."""

    def __init__(self, complaints: Sequence[Complaint]) -> None:
        self.complaints = sorted(complaints, key=lambda one: (one.file, one.line, one.column))
        first = self.complaints[0]
        more = f" (and {len(complaints) - 1} more)" if len(complaints) > 1 else ""
        super().__init__(f"{first}{more}", first.hint)


@dataclass(frozen=True)
class Node:
    """A text, a list or a mapping. Lines and columns count from 1."""

    value: str | list[Node] | list[tuple[Node, Node]]
    line: int
    column: int
    plain: bool = False
    """A text without quotes: ``null`` is nothing then."""
    mapping: bool = False

    @property
    def kind(self) -> str:
        if self.empty:
            return "nothing"
        return "a text" if isinstance(self.value, str) else "a mapping" if self.mapping else "a list"

    @property
    def empty(self) -> bool:
        return self.plain and self.value in ("", "~", "null", "Null", "NULL")

    @property
    def items(self) -> list[Node]:
        return list(self.value) if isinstance(self.value, list) and not self.mapping else []  # type: ignore[arg-type]

    @property
    def pairs(self) -> list[tuple[Node, Node]]:
        return list(self.value) if isinstance(self.value, list) and self.mapping else []  # type: ignore[arg-type]


def read(path: str) -> Node:
    """The one document of a file. Raises RunbookError, UsageError."""
    try:
        with open(path, "rb") as file:
            raw = file.read(MAX_SIZE + 1)
    except OSError as error:
        raise UsageError(f"the runbook {path} cannot be read: {error.strerror}") from error
    name = os.path.basename(path)
    if len(raw) > MAX_SIZE:
        raise _wrong(name, 1, 1, f"larger than {MAX_SIZE >> 20} MiB", "split it, or list the machines in a CSV file beside it")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = raw[:error.start]
        line, column = before.count(b"\n") + 1, error.start - before.rfind(b"\n")
        raise _wrong(name, line, column, "not UTF-8", "save it as UTF-8") from None
    return _Composer(name).document(text)


def _wrong(file: str, line: int, column: int, what: str, hint: str) -> RunbookError:
    return RunbookError([Complaint(file, line, column, what, hint)])


class _Composer:
    """From events, without what YAML can do beyond texts, lists and mappings."""

    def __init__(self, file: str) -> None:
        self._file = file

    def document(self, text: str) -> Node:
        import yaml

        try:
            events = yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
            found = [self._node(event, events, 0) for event in self._begins(events)]
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            raise _wrong(self._file, mark.line + 1 if mark else 1, mark.column + 1 if mark else 1,
                         f"this is no YAML: {error.problem or error.context}",
                         "look at the indentation, the quotes and the brackets before this place") from None
        except yaml.reader.ReaderError as error:
            before = text[:error.position]
            raise _wrong(self._file, before.count("\n") + 1, len(before) - before.rfind("\n"),
                         "a character that YAML does not allow", "remove it, or write it as an escape in double quotes") from None
        if not found:
            raise _wrong(self._file, 1, 1, "empty; expected a mapping with name and machines", "see docs/reference.md, Runbooks")
        if len(found) > 1:
            raise _wrong(self._file, found[1].line, found[1].column, "a second document; expected one",
                         "remove the --- before it")
        return found[0]

    @staticmethod
    def _begins(events: Iterator[yaml.Event]) -> Iterator[yaml.Event]:
        """The first event of each document."""
        import yaml

        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                yield next(events)

    def _node(self, event: Any, events: Iterator[Any], depth: int) -> Node:
        import yaml

        line, column = event.start_mark.line + 1, event.start_mark.column + 1
        if isinstance(event, yaml.AliasEvent):
            raise _wrong(self._file, line, column, f"an alias (*{event.anchor}); aliases are not read",
                         "defaults, and the settings of a wave, hold for many machines")
        if event.tag is not None and event.tag != "!":
            raise _wrong(self._file, line, column, f"a tag ({event.tag}); tags are not read", "remove it, and quote the text")
        if depth > MAX_DEPTH:
            raise _wrong(self._file, line, column, f"more than {MAX_DEPTH} levels deep",
                         "a runbook has fewer; look at the brackets")
        if isinstance(event, yaml.ScalarEvent):
            return Node(event.value, line, column, plain=event.implicit[0])
        inner = list(self._inside(events, depth + 1))
        if isinstance(event, yaml.SequenceStartEvent):
            return Node(inner, line, column)
        return Node(list(zip(inner[::2], inner[1::2], strict=True)), line, column, mapping=True)

    def _inside(self, events: Iterator[Any], depth: int) -> Iterator[Node]:
        import yaml

        while not isinstance(event := next(events), yaml.SequenceEndEvent | yaml.MappingEndEvent):
            yield self._node(event, events, depth)
