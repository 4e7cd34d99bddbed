"""A step of a task → a verb and its request, as the command line would make it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from imgtool.errors import UsageError
from imgtool.model import Allocation, ConvertRequest, SourceOptions
from imgtool.model.endpoint import NO_CREDENTIALS, Placing
from imgtool.model.guest import AdaptRequest, Platform
from imgtool.model.metal import Reading
from imgtool.model.migration import GuestOptions, MigrateRequest
from imgtool.model.runbook import (
    AdaptStep,
    ConvertStep,
    Endpoint,
    MigrateStep,
    P2vStep,
    Settings,
    Task,
    TranslateStep,
    V2pStep,
    VerifyStep,
)
from imgtool.model.translation import MachineRequest, TranslateRequest
from imgtool.model.v2p import DiskChoice, V2pRequest
from imgtool.runs.tasks import address, credentials
from imgtool.runs.wishes import described, network, side, spec_of
from imgtool.suffixes import is_archive, is_machine

MIGRATING: Mapping[type, str] = {MigrateStep: "migrate", P2vStep: "p2v"}


def request_of(task: Task, step: object) -> tuple[str, Any]:
    """(key of ``VERBS``, or ``verify``; its request). Raises UsageError."""
    made: Mapping[type, Callable[[Task, Any], tuple[str, Any]]] = {
        MigrateStep: _migrate, P2vStep: _migrate, V2pStep: _v2p, ConvertStep: _convert, VerifyStep: _verify,
        TranslateStep: _translate, AdaptStep: _adapt}
    return made[type(step)](task, step)


def _path(task: Task, name: str) -> str:
    return os.path.join(task.base, name)


def _paths(task: Task, names: tuple[str, ...] | None) -> tuple[str, ...]:
    return tuple(_path(task, name) for name in names or ())


def _needed(endpoint: Endpoint | None, key: str, task: Task) -> Endpoint:
    if endpoint is None:
        raise UsageError(f"{task.name}: {key} is missing", f"{key}: an endpoint, in the defaults or with the machine")
    return endpoint


def _is(said: bool | None, *, usual: bool) -> bool:
    return usual if said is None else said


def _migrate(task: Task, step: object) -> tuple[str, MigrateRequest]:
    said = task.settings
    source, target = _needed(task.source, "from", task), _needed(task.target, "to", task)
    networks = tuple((old, network(new)) for old, new in said.networks or ())
    physical = isinstance(step, P2vStep)
    return MIGRATING[type(step)], MigrateRequest(
        name=None if physical else task.name, new_name=said.new_name or (task.name if physical else None),
        source=address(source, task.base), target=address(target, task.base),
        source_credentials=credentials(source), target_credentials=credentials(target), networks=networks,
        placing=Placing(storage=said.storage, pool=said.pool, folder=said.target_folder, host=said.host,
                        networks=tuple(new.name for _, new in networks if new.name)),
        storage=said.storage_map or (), disk_roots=_paths(task, said.disk_roots), format=said.format,
        allocation=said.allocation or Allocation.THIN, guest=_guest(task, said), new_identity=bool(said.new_identity),
        hardware_version=said.hardware_version, verify=_is(said.verify, usual=True), clone=_is(said.clone, usual=True),
        start=bool(said.start), shutdown_source=bool(said.shutdown_source), ignore_lock=bool(said.ignore_lock),
        staging=_path(task, said.staging) if said.staging else None,
        reading=_reading(task, step) if isinstance(step, P2vStep) else Reading())


def _reading(task: Task, step: P2vStep) -> Reading:
    return Reading(whole=step.whole, live=step.live, frozen=step.frozen, lvm=step.lvm, freeze_seconds=float(step.freeze_seconds),
                   rescue=_path(task, step.rescue) if step.rescue else None)


def _guest(task: Task, said: Settings) -> GuestOptions:
    return GuestOptions(adapt=_is(said.adapt, usual=True), key_files=_paths(task, said.key_files),
                        packages=_path(task, said.packages) if said.packages else None,
                        drivers=_path(task, said.virtio_win) if said.virtio_win else None,
                        rebuild_initramfs=bool(said.rebuild_initramfs))


def _v2p(task: Task, step: V2pStep) -> tuple[str, V2pRequest]:
    said = task.settings
    source = None if step.image or task.source is None else task.source
    return "v2p", V2pRequest(
        name=_path(task, step.image) if step.image else task.name, source=_uri(task, source), target=_uri(task, task.target),
        disks=tuple(DiskChoice(source=old, device=new) for old, new in step.disks), confirmed=step.confirm,
        reading=SourceOptions(ignore_lock=bool(said.ignore_lock)), disk_roots=_paths(task, said.disk_roots),
        credentials=credentials(source) if source else NO_CREDENTIALS, adapt=_is(said.adapt, usual=True),
        key_files=_paths(task, said.key_files), drivers=_path(task, said.virtio_win) if said.virtio_win else None,
        grow=step.grow, wipe=step.wipe, boot_entry=step.boot_entry, verify=_is(said.verify, usual=True))


def _uri(task: Task, endpoint: Endpoint | None) -> str | None:
    if endpoint is None:
        return None
    uri = address(endpoint, task.base)
    return uri.path if uri.scheme == "path" else endpoint.uri


def _convert(task: Task, step: ConvertStep) -> tuple[str, Any]:
    said, source, destination = task.settings, _path(task, step.source), os.path.realpath(_path(task, step.destination))
    whole = is_machine(source)
    spec = spec_of(step.to, destination, whole=whole, subformat=step.subformat, compress=step.compress,
                   allocation=step.allocation)
    request = ConvertRequest(
        source=source, destination=destination, spec=spec, reading=SourceOptions(ignore_lock=bool(said.ignore_lock)),
        force=step.force, verify=step.verify, clone=_is(said.clone, usual=True), only_used=step.only_used)
    if not whole:
        return "convert", request
    suffix = ".ovf" if is_archive(destination) else side(spec.format)
    return "machine", MachineRequest(convert=request, translate=_described(task, source, None, suffix, force=step.force))


def _described(task: Task, source: str, destination: str | None, suffix: str, *, force: bool) -> TranslateRequest:
    said = task.settings
    return TranslateRequest(
        source=source, destination=destination, suffix=suffix,
        networks=tuple((old, network(new)) for old, new in said.networks or ()),
        storage=said.storage_map or (), disk_roots=_paths(task, said.disk_roots), name=said.new_name,
        new_identity=bool(said.new_identity), hardware_version=said.hardware_version, force=force)


def _translate(task: Task, step: TranslateStep) -> tuple[str, TranslateRequest]:
    destination = _path(task, step.destination)
    return "translate", _described(task, _path(task, step.source), destination, described(destination), force=step.force)


def _verify(task: Task, step: VerifyStep) -> tuple[str, tuple[str, str]]:
    return "verify", (_path(task, step.left), _path(task, step.right))


def _adapt(task: Task, step: AdaptStep) -> tuple[str, AdaptRequest]:
    from imgtool.steps.machine_disks import machine_disks, machine_nics

    said, named = task.settings, _paths(task, step.images)
    return "adapt", AdaptRequest(
        images=machine_disks(named, _paths(task, said.disk_roots)), platform=Platform(step.platform.value),
        reading=SourceOptions(ignore_lock=bool(said.ignore_lock)), key_files=_paths(task, said.key_files),
        nics=machine_nics(named[0]) if is_machine(named[0]) else (), rebuild_initramfs=bool(said.rebuild_initramfs),
        drivers=_path(task, said.virtio_win) if said.virtio_win else None,
        packages=_path(task, said.packages) if said.packages else None)
