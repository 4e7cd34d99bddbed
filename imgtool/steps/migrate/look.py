"""Both sides, looked at before the first byte: what is there, what is in the way, and the machine as it shall be."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace

from imgtool import endpoints
from imgtool.endpoints import FarTarget, HostTarget, Source
from imgtool.endpoints.files import Folder, MachineFile
from imgtool.endpoints.metal import Metal
from imgtool.errors import UsageError
from imgtool.files import file_name
from imgtool.journal import state_folder
from imgtool.model import Allocation, SourceOptions
from imgtool.model.endpoint import Found, Seen
from imgtool.model.migration import MigrateRequest
from imgtool.model.problem import Problem
from imgtool.model.situation import Asked, Finding, Situation, SourceDisk, Taken, TargetState
from imgtool.model.translation import PlacedFile, Translation
from imgtool.progress import Control
from imgtool.steps.migrate.describe import describe
from imgtool.steps.preflight import findings, problems
from imgtool.steps.spec import SUFFIX_OF
from imgtool.steps.translate import world_of
from imgtool.storage import free_above


@dataclass(frozen=True, kw_only=True)
class Move:
    """A machine, where it is and where it goes."""

    request: MigrateRequest
    source: Source
    target: HostTarget | FarTarget
    seen: Seen
    state: TargetState
    preview: Translation
    """The machine at the target, before anybody has looked into the guest."""
    findings: tuple[Finding, ...]

    @property
    def name(self) -> str:
        """At the target."""
        return self.preview.machine.name

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Of preflight, then of the description."""
        return tuple(dict.fromkeys((*problems(self.findings), *self.preview.problems)))

    def bytes_of(self, number: int) -> int:
        """What of a disk is to be read, as far as the source has told."""
        known = self.seen.state.disks
        disk = known[number] if number < len(known) else SourceDisk(name="")
        return disk.capacity if disk.data is None else disk.data

    @property
    def identity_of(self) -> list[object]:
        """What the machine's identity at the target is made from."""
        machine = self.seen.parsed.machine
        return [self.request.new_identity, machine.uuid, [nic.mac for nic in machine.nics]]

    @property
    def adapts(self) -> bool:
        """A machine that stays in its world has its hardware already."""
        return self.request.guest.adapt and world_of(self.seen.suffix, self.seen.parsed.machine) is not self.target.world


@contextmanager
def looked(request: MigrateRequest, control: Control, *, finished: bool = False) -> Iterator[Move]:
    """Connects to both sides, and looks. ``finished``: a run before did all but clear up.

    Raises UsageError (no such machine, pool, network), UnreachableError, RefusedError.
    """
    with ExitStack() as stack:
        source = stack.enter_context(closing(endpoints.source(request.source, request.source_credentials, control.stop)))
        if isinstance(source, MachineFile):
            source.roots, source.reading = request.disk_roots, SourceOptions(ignore_lock=request.ignore_lock)
        if isinstance(source, Metal):
            source.reading = request.reading
        seen = source.look(_chosen(source, request.name), control)
        target = stack.enter_context(closing(endpoints.target(request.target, request.target_credentials, control.stop)))
        if isinstance(target, Folder):
            target.finished = finished
        if request.format and request.format not in target.formats:
            raise UsageError(f"--format {request.format}: this target takes {', '.join(target.formats)}")
        state = target.look(request.placing, control)
        if request.start and state.kind == "folder":
            raise UsageError(f"--start: {state.storage} is no host that runs machines", "leave --start out")
        preview = describe(request, seen, target, state, files=placed(seen, target, disk_names(request, seen, target)),
                           sizes=[disk.capacity for disk in seen.state.disks])
        state = replace(state, machines=_others(state, preview.machine.name + target.temporary),
                        staging_free=free_above(request.staging or str(state_folder())) if target.folder is None else None)
        situation = Situation(machine=seen.parsed.machine, result=preview.machine, source=seen.state, target=state,
                              asked=_asked(request, target))
        yield Move(request=request, source=source, target=target, seen=seen, state=state, preview=preview,
                   findings=findings(situation))


def disk_format(request: MigrateRequest, target: HostTarget | FarTarget) -> str:
    return request.format or target.formats[0]


def disk_names(request: MigrateRequest, seen: Seen, target: HostTarget | FarTarget) -> list[str]:
    """Of the disks' files at the target: the machine's name, numbered where it has several."""
    stem, suffix = file_name(request.new_name or seen.found.name), SUFFIX_OF[disk_format(request, target)]
    count = len(seen.parsed.machine.disks)
    return [f"{stem}{suffix}"] if count == 1 else [f"{stem}-{number}{suffix}" for number in range(count)]


def placed(seen: Seen, target: HostTarget | FarTarget, names: Sequence[str], form: str | None = None) -> list[PlacedFile]:
    """Where each disk of the description will stand."""
    return [PlacedFile(slot.path, os.path.join(target.folder or "", name), form or target.formats[0])
            for slot, name in zip(seen.parsed.machine.disks, names, strict=True)]


def _others(state: TargetState, temporary: str) -> tuple[Taken, ...]:
    """All machines of the target but the one that a stopped run of ours has left half made."""
    return tuple(one for one in state.machines if one.name != temporary)


def _chosen(source: Source, name: str | None) -> Found:
    if name is not None:
        return source.find(name)
    known = source.machines()
    if len(known) == 1:
        return known[0]
    there = ", ".join(one.name for one in known[:20]) or "none"
    raise UsageError("which machine?" if known else "there is no machine at the source", f"there are: {there}")


def _asked(request: MigrateRequest, target: HostTarget | FarTarget) -> Asked:
    return Asked(thick=request.allocation != Allocation.THIN, staged=target.folder is None, new_identity=request.new_identity,
                 ignore_running=request.shutdown_source)
