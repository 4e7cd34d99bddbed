"""A runbook → one task a machine: settings put together, endpoints looked up, machines that are only described found."""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from imgtool.endpoints.uri import parse
from imgtool.errors import UsageError
from imgtool.model.endpoint import Credentials, Found, Uri
from imgtool.model.runbook import Endpoint, Machine, MigrateStep, Runbook, Secret, Settings, Task, Wave
from imgtool.progress import Stop
from imgtool.runs.runbook.checks import groups, merged

LOCAL = "localhost"
"""What files and local hypervisors count as, for the limits of hosts."""


@dataclass(frozen=True, kw_only=True)
class Group:
    """A wave of tasks."""

    name: str
    tasks: tuple[Task, ...]


def tasks_of(book: Runbook, base: str, only: Iterable[str] = (), stop: Stop | None = None) -> list[Group]:
    """In waves. ``base``: the folder of the runbook; ``only``: names or globs. Looks at sources where machines are not named.

    Raises UsageError (two of one name, nothing found), UnreachableError.
    """
    finder, wanted = _Finder(book, base, stop or Stop()), list(only)
    made, taken = [], dict[str, Machine]()
    for wave, machines in groups(book):
        tasks = []
        for machine in machines:
            for task in finder.tasks(machine, wave):
                if (other := taken.get(task.name)) is not None:
                    raise _twice(task.name, other, machine)
                taken[task.name] = machine
                if not wanted or any(fnmatch.fnmatchcase(task.name, one) for one in wanted):
                    tasks.append(task)
        made.append(Group(name=wave.name if wave else "all", tasks=tuple(tasks)))
    if wanted and not any(group.tasks for group in made):
        raise UsageError(f"--only {', '.join(wanted)}: the runbook has no such machine",
                         f"there are: {', '.join(list(taken)[:20])}")
    return made


def _twice(name: str, first: Machine, second: Machine) -> UsageError:
    """The second would be taken for the first: what has an id is done once."""
    if first is second:
        return UsageError(f"{_named(first)} finds two machines that are called {name}", "rename one of them at the source")
    return UsageError(f"{name} is found twice: by {_named(first)} and by {_named(second)}",
                      "each machine is one run; make the globs exclude each other")


def _named(machine: Machine) -> str:
    return f"line {machine.line} ({machine.name or machine.glob or machine.folder or machine.tag})"


class _Finder:
    def __init__(self, book: Runbook, base: str, stop: Stop) -> None:
        self._book, self._base, self._stop = book, base, stop
        self._endpoints: Mapping[str, Endpoint] = dict(book.endpoints)
        self._lists: dict[Endpoint, list[Found]] = {}

    def tasks(self, machine: Machine, wave: Wave | None) -> Iterator[Task]:
        layers = (machine, *([wave] if wave else []), self._book.defaults)
        settings = Settings(**merged(*layers))  # type: ignore[arg-type]
        for name in [machine.name] if machine.name is not None else self._found(machine, settings):
            yield self._task(name, settings, wave)

    def _task(self, name: str, settings: Settings, wave: Wave | None) -> Task:
        settings = filled(settings, name)
        source, target = self._endpoint(settings.source), self._endpoint(settings.target)
        return Task(batch=self._book.name, wave=wave.name if wave else "all", name=name, settings=settings, source=source,
                    target=target, source_host=host_of(source), target_host=host_of(target), base=self._base)

    def _endpoint(self, text: str | None) -> Endpoint | None:
        if text is None:
            return None
        return self._endpoints.get(text) or Endpoint(uri=text)

    def _found(self, machine: Machine, settings: Settings) -> list[str]:
        """The names that a glob, a folder or a tag means. Raises UsageError where there is none."""
        from imgtool.steps.migrate import machines

        source = self._endpoint(settings.source)
        assert source is not None  # noqa: S101 - the reader has refused it
        if source not in self._lists:
            self._lists[source] = machines(address(source, self._base), credentials(source), self._stop)
        found = [one.name for one in self._lists[source] if _fits(one, machine)]
        if not found:
            there = ", ".join(one.name for one in self._lists[source][:20]) or "none"
            if machine.tag is not None and not any(one.tags for one in self._lists[source]):
                raise UsageError(f"{_named(machine)}: imgtool sees no tags at {source.uri}",
                                 "tags are the custom attributes of a vCenter; else name machines by glob, folder or csv; "
                                 f"there are: {there}")
            raise UsageError(f"{_named(machine)} finds no machine at {source.uri}", f"there are: {there}")
        return found


def _fits(found: Found, machine: Machine) -> bool:
    if machine.glob is not None:
        return fnmatch.fnmatchcase(found.name, machine.glob)
    if machine.tag is not None:
        return machine.tag in found.tags
    folder = (machine.folder or "").strip("/")
    return found.folder.strip("/") == folder or found.folder.strip("/").startswith(f"{folder}/")


def filled(settings: Settings, name: str) -> Settings:
    """``{name}`` in texts is the machine's."""
    said: dict[str, Any] = {field.name: _filled(getattr(settings, field.name), name) for field in fields(Settings)}
    return Settings(**said)


def _filled(value: object, name: str) -> object:
    if isinstance(value, str) and type(value) is str:
        return value.replace("{name}", name)
    if isinstance(value, tuple):
        return tuple(_filled(one, name) for one in value)
    if type(value).__module__ == Settings.__module__ and hasattr(value, "__dataclass_fields__"):
        return replace(value, **{field.name: _filled(getattr(value, field.name), name) for field in fields(value)})  # type: ignore[type-var, arg-type]
    return value


def address(endpoint: Endpoint, base: str) -> Uri:
    """Paths are relative to the runbook."""
    uri = parse(endpoint.uri)
    return replace(uri, path=os.path.join(base, uri.path)) if uri.scheme == "path" else uri


def credentials(endpoint: Endpoint) -> Credentials:
    """Where the secret is, not the secret."""
    secret = endpoint.password or Secret()
    return Credentials(password_file=secret.file, password_env=secret.env, password_command=secret.command or (),
                       thumbprint=endpoint.thumbprint)


def host_of(endpoint: Endpoint | None) -> str:
    uri = parse(endpoint.uri) if endpoint else None
    return uri.host if uri and uri.host else LOCAL


def steps_of(task: Task) -> tuple[object, ...]:
    return task.settings.steps or (MigrateStep(),)
