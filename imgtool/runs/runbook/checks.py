"""What the types of a runbook do not say."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import fields

from imgtool.endpoints.uri import parse
from imgtool.errors import UsageError
from imgtool.model.runbook import (
    ConvertStep,
    Endpoint,
    Machine,
    MigrateStep,
    P2vStep,
    Runbook,
    Settings,
    TranslateStep,
    V2pStep,
    Wave,
)
from imgtool.runs.runbook.bind import Binder
from imgtool.runs.wishes import described
from imgtool.suffixes import is_machine

PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
ADDRESS = re.compile(r"[/.]")
"""What a name of an endpoint has not."""
SHOWN = 50
"""Names of endpoints in a message, and among which what was meant is looked for: all of 3,000 for each of as many is minutes."""


def merged(*said: Settings) -> dict[str, object]:
    """Each setting from the first that says it."""
    return {field.name: next((value for one in said if (value := getattr(one, field.name)) is not None), None)
            for field in fields(Settings)}


def groups(book: Runbook) -> Iterator[tuple[Wave | None, tuple[Machine, ...]]]:
    yield from ((wave, wave.machines) for wave in book.waves if wave)
    if book.machines:
        yield None, book.machines


class Checks:
    """Complains to the binder that has read it. What the binder has complained of already is None here, whatever its type."""

    def __init__(self, book: Runbook, binder: Binder) -> None:
        self._book, self._binder = book, binder
        self._endpoints: Mapping[str, Endpoint] = dict(book.endpoints or ())

    def run(self) -> None:
        if not self._book.waves and not self._book.machines and not self._binder.complaints:
            self._say(self._book, "", "no machines; expected machines, or waves with machines", "machines: [web01, web02]")
        if self._book.waves and self._book.machines:
            self._say(self._book, "machines", "machines and waves; expected one of the two",
                      "give these machines a wave of their own")
        for name, endpoint in self._endpoints.items():
            if endpoint is not None and endpoint.uri is not None:
                self._address(endpoint, "uri", endpoint.uri, f"endpoint {name}")
        if self._book.defaults is not None:
            self._settings(self._book.defaults)
        self._machines()

    def _say(self, of: object, field: str, what: str, hint: str) -> None:
        self._binder.complain(self._binder.place(of, field), what, hint)

    def _machines(self) -> None:
        waves, names = set[str](), dict[str, int]()
        for wave, machines in groups(self._book):
            if wave is not None:
                if wave.name in waves:
                    self._say(wave, "name", f"wave {wave.name} stands here twice", "give it another name")
                waves.add(wave.name)
                self._settings(wave)
            for machine in machines:
                if machine is not None:
                    self._machine(machine, wave, names)

    def _machine(self, machine: Machine, wave: Wave | None, names: dict[str, int]) -> None:
        if machine.name is not None:
            if machine.name in names:
                self._say(machine, "name", f"machine {machine.name} stands in line {names[machine.name]} already",
                          "remove one; two machines of one name need two runbooks")
            names.setdefault(machine.name, machine.line)
        self._settings(machine)
        whole = merged(machine, *([wave] if wave else []), self._book.defaults or Settings())
        steps = whole["steps"] or (MigrateStep(),)
        needs_both = [step for step in steps if isinstance(step, MigrateStep | P2vStep)]  # type: ignore[attr-defined]
        needs_source = machine.name is None or any(isinstance(step, V2pStep) and not step.image for step in steps)  # type: ignore[attr-defined]
        for key, field in (("from", "source"), ("to", "target")):
            if whole[field] is None and (needs_both or (field == "source" and needs_source)):
                called = machine.name or machine.glob or machine.folder or machine.tag
                self._say(machine, "", f"machine {called}: {key} is missing; expected an endpoint, here, in its wave or in the "
                          "defaults", f"defaults: {{{key}: …}}")

    def _settings(self, said: Settings) -> None:
        for field, key in (("source", "from"), ("target", "to")):
            text = getattr(said, field)
            if text is None or text in self._endpoints:
                continue
            if ADDRESS.search(text):
                self._address(said, field, text, key)
            else:
                names = [*self._endpoints][:SHOWN]
                close = difflib.get_close_matches(text, names, 1)
                known = ", ".join(names) or "one of endpoints"
                remedy = f"endpoints: {{{text}: {{uri: esx://root@{text}/}}}}; a folder is ./{text}"
                self._say(said, field, f"{key}: no endpoint {text}; expected {known}, or an address",
                          f"did you mean {close[0]}?" if close else remedy)
        self._window(said)
        for step in said.steps or ():
            self._step(step)
        self._placeholders(said)

    def _window(self, said: Settings) -> None:
        window = said.window
        if window and window.not_before and window.until and window.until <= window.not_before:
            self._say(window, "until", "until is not after not-before; expected a later time", "until: a time after not-before")

    def _step(self, step: object) -> None:
        if isinstance(step, ConvertStep) and step.to is not None:
            self._convert(step)
        elif isinstance(step, TranslateStep) and step.destination is not None:
            try:
                described(step.destination)
            except UsageError as error:
                self._say(step, "destination", f"translate: {error.message}", error.hint or "see docs/reference.md, translate")
        elif isinstance(step, V2pStep):
            self._v2p(step)

    def _convert(self, step: ConvertStep) -> None:
        from imgtool.steps.spec import image_spec, refuse_other_name

        field = "to"
        try:
            image_spec(step.to, subformat=step.subformat, allocation=step.allocation, compress=step.compress)
            field = "destination"
            if step.source is not None and step.destination is not None and not is_machine(step.source):
                refuse_other_name(step.destination, step.destination, step.to)
        except UsageError as error:
            self._say(step, field, f"convert: {error.message}", error.hint or "see docs/reference.md, convert")

    def _v2p(self, step: V2pStep) -> None:
        """A name of the kernel may be another disk's at the next start: only what the disk says of itself confirms it."""
        if not step.disks:
            self._say(step, "disks", "v2p: no disks; expected at least one", "disks: {vda: /dev/disk/by-id/…}")
        elif not step.confirm:
            devices = ", ".join(device for _, device in step.disks)
            self._say(step, "disks", f"v2p: nothing confirms that {devices} may be written over; expected confirm with a serial",
                      "confirm: [SERIAL]; imgtool v2p --dry-run shows it")

    def _placeholders(self, said: Settings) -> None:
        for field in fields(Settings):
            value = getattr(said, field.name)
            for wrong in PLACEHOLDER.findall(value) if isinstance(value, str) else ():
                if wrong != "name":
                    self._say(said, field.name, f"{{{wrong}}}: expected {{name}}, which is the only one", "write {name}")

    def _address(self, of: object, field: str, text: str, what: str) -> None:
        try:
            parse(text)
        except UsageError as error:
            hint = (error.hint or "esx://root@esxi1/, qemu:///system, or a path").replace(
                "use --password-file, IMGTOOL_PASSWORD or the prompt", "endpoints: {…: {uri: …, password: {env: NAME}}}")
            self._say(of, field, f"{what}: {error.message}", hint)
