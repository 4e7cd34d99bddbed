"""Machines that stand in a CSV file beside the runbook: a row a machine, the first row has the keys."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator
from dataclasses import fields, replace

from imgtool.model.runbook import Machine, Runbook, Settings
from imgtool.runs.runbook.bind import Binder, keys, types
from imgtool.runs.runbook.nodes import MAX_SIZE, Node

TEXTS = (str, str | None, bool | None, int | None)


def with_rows(book: Runbook, folder: str, binder: Binder) -> Runbook:
    """Each machine with ``csv`` becomes those of its rows."""
    waves = tuple(replace(wave, machines=_all(wave.machines, folder, binder)) if wave else wave for wave in book.waves or ())
    made = replace(book, waves=waves, machines=_all(book.machines, folder, binder))
    for old, new in [(book, made), *zip(book.waves or (), waves, strict=True)]:
        _same_places(binder, old, new)
    return made


def _same_places(binder: Binder, old: object, new: object) -> None:
    binder.places.update({(id(new), field): node for (owner, field), node in list(binder.places.items()) if owner == id(old)})


def _all(machines: tuple[Machine, ...] | None, folder: str, binder: Binder) -> tuple[Machine, ...]:
    found: list[Machine] = []
    for machine in machines or ():
        found += [machine] if machine is None or machine.csv is None else _rows(machine, folder, binder)
    return tuple(found)


def _rows(machine: Machine, folder: str, binder: Binder) -> Iterator[Machine]:
    """What the row does not say, the entry of the runbook says."""
    path = os.path.join(folder, machine.csv or "")
    inner = Binder(os.path.basename(path))
    try:
        rows = _read(path)
    except (OSError, ValueError, csv.Error) as error:
        why = getattr(error, "strerror", None) or error
        binder.complain(binder.place(machine, "csv"), f"csv: {machine.csv} cannot be read: {why}; expected a file beside the "
                        "runbook", "a file in UTF-8, with a first row of keys")
        return
    said = {field.name: getattr(machine, field.name) for field in fields(Settings)}
    for node in _nodes(rows, inner):
        row: Machine | None = inner.bind(node, Machine, "machine")
        if row is not None:
            own = {name: value for name, value in said.items() if getattr(row, name) is None}
            made = replace(row, **own)
            _same_places(inner, row, made)
            yield made
    binder.complaints += inner.complaints


def _read(path: str) -> list[list[str]]:
    """Raises OSError, ValueError, csv.Error."""
    with open(path, encoding="utf-8-sig", newline="") as file:
        text = file.read(MAX_SIZE + 1)
    if len(text) > MAX_SIZE:
        raise ValueError(f"larger than {MAX_SIZE >> 20} MiB")
    return list(csv.reader(io.StringIO(text, newline=""), strict=True))  # not splitlines: U+2028 and the like end no row


def _nodes(rows: list[list[str]], inner: Binder) -> Iterator[Node]:
    """A mapping for each row; empty cells are not said."""
    head = [cell.strip() for cell in rows[0]] if rows else []
    if "name" not in head:
        inner.complain(Node("", 1, 1), "no column name in the first row; expected one", "name,storage,new-name")
        return
    for number, word in enumerate(head, 1):
        field = keys(Machine).get(word)
        if field is None or types(Machine)[field.name] not in TEXTS:
            inner.complain(Node("", 1, number), f"{word!r}: no such column; expected keys of a machine that take a text",
                           "name, from, to, new-name, storage, …")
            return
    for line, row in enumerate(rows[1:], 2):
        if len(row) > len(head):
            inner.complain(Node("", line, len(head) + 1), f"{len(row)} cells; expected {len(head)}",
                           "quote what has a comma in it")
        elif any(cell.strip() for cell in row):
            yield Node([(Node(word, 1, column), Node(cell.strip(), line, column)) for column, (word, cell) in
                        enumerate(zip(head, row, strict=False), 1) if cell.strip()], line, 1, mapping=True)


