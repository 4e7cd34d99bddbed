"""To a target whose disks are files of this host: libvirt here, or a folder."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import cast

from imgtool.copying import receive
from imgtool.copying.pool import disks_together
from imgtool.endpoints import HostTarget
from imgtool.errors import RefusedError
from imgtool.formats.locks import redo_path
from imgtool.journal import PARTIAL, Journal
from imgtool.model import ImageSpec, SourceOptions
from imgtool.model.guest import NOTHING_CHANGED, AdaptRequest, AdaptResult, Platform
from imgtool.model.migration import Migrated, MovedDisk
from imgtool.model.translation import World
from imgtool.progress import Control, Stop, together
from imgtool.steps.adapt import adapt
from imgtool.steps.migrate.describe import Identity, describe
from imgtool.steps.migrate.fetch import Wish, fetch
from imgtool.steps.migrate.look import Move, disk_format, disk_names, placed
from imgtool.steps.migrate.work import Work

PLATFORMS = {World.KVM: Platform.KVM, World.ESXI: Platform.ESXI}


def move(move: Move, work: Work, book: Journal, control: Control, keys: Sequence[str]) -> Migrated:
    """Copies, adapts, describes, defines; what a run before has done is found. Raises what those raise."""
    target = cast("HostTarget", move.target)
    paths = disk_paths(move)
    refuse_taken(paths)
    os.makedirs(os.path.dirname(paths[0]), exist_ok=True)
    disks = _copy(move, paths, book, control)
    identity = work.identity(move.preview.machine, move.identity_of)
    changed = _adapt(move, paths, identity, work, book, control, keys)
    made = describe(move.request, move.seen, target, move.state, capabilities=changed.capabilities,
                    files=placed(move.seen, target, paths, spec_of(move).format),
                    identity=identity, suffix=target.temporary)
    book.event("described", lines=made.lines)
    with book.step("define", machine=move.name) as told, _published(paths):
        machine = target.define(made.machine.name, made.rendered.text, paths)
        target.rename(machine, move.name)
        told["id"] = machine
    return Migrated(machine=move.name, id=machine, source="", target="", disks=tuple(disks), changes=changed.changes,
                    warnings=changed.warnings)


@contextmanager
def _published(paths: Sequence[str]) -> Iterator[None]:
    """The disks have their names; where the block fails they are taken back."""
    try:
        for path in paths:
            receive.publish(path)
        yield
    except BaseException:
        for path in paths:
            receive.withdraw(path)
        raise


def forget(move: Move) -> None:
    """The machine is there: nothing of the way stays."""
    for path in disk_paths(move):
        receive.forget(path)


def spec_of(move: Move) -> ImageSpec:
    return ImageSpec(format=disk_format(move.request, move.target), allocation=move.request.allocation)


def disk_paths(move: Move) -> list[str]:
    """Final names."""
    assert move.target.folder is not None  # noqa: S101 - this is a host target
    return [os.path.join(move.target.folder, name) for name in disk_names(move.request, move.seen, move.target)]


def discard(move: Move) -> list[str]:
    """Removes copies, a half-made machine, and disks that have their names but no machine; what was removed.

    What is not yet written of the guest's changes goes, too: it would be written into the next copy.
    """
    paths = disk_paths(move)
    removed, free = cast("HostTarget", move.target).discard(move.name, [path for path in paths if receive.is_whole(path)])
    for path in free:
        if receive.is_ours(path) and os.path.lexists(path):
            os.unlink(path)
            removed.append(path)
    for path in paths:
        copy = path + PARTIAL
        redo = redo_path(copy)
        removed += [name for name in (redo, copy) if os.path.lexists(name)]
        receive.forget(path)  # first: a copy that is half changed is not whole
        shutil.rmtree(redo, ignore_errors=True)
        receive.discard(path)
    return removed


def refuse_taken(paths: Sequence[str]) -> None:
    """Raises RefusedError where a name of ours is another's."""
    for path in paths:
        if os.path.lexists(path) and not receive.is_ours(path):
            raise RefusedError(f"{path} exists", "--name gives the machine another name; nothing is overwritten")


def _copy(move: Move, paths: Sequence[str], book: Journal, control: Control) -> list[MovedDisk]:
    """All disks, a few at a time. The first failure stops the others, and is what is told."""
    stop = Stop(control.stop)
    slots = move.seen.parsed.machine.disks

    def one(number: int) -> MovedDisk:
        own = replace(control, stop=stop, progress=progress.of(number, os.path.basename(paths[number])))
        wish = Wish(path=paths[number], spec=spec_of(move), verify=move.request.verify, clone=move.request.clone,
                    ignore_lock=move.request.ignore_lock)
        with book.step("copy", disk=slots[number].path, to=paths[number]) as told, \
                move.source.reader(move.seen, number, own) as reader:
            done = fetch(reader, slots[number].path, wish, own)
            told["result"] = done
        control.disks.whole(number, done)
        return done

    with together(control.progress, move.bytes_of, len(slots)) as progress:
        return disks_together(one, len(slots), stop)


def _adapt(move: Move, paths: Sequence[str], identity: Identity, work: Work, book: Journal, control: Control,
           keys: Sequence[str]) -> AdaptResult:
    """The copies are changed in place, whole or not at all; until then they have no name."""
    if not move.adapts:
        return NOTHING_CHANGED
    images = [path + PARTIAL if os.path.lexists(path + PARTIAL) else path for path in paths]
    of = [[[os.stat(image).st_dev, os.stat(image).st_ino] for image in images], list(identity.macs)]
    if done := work.adapted(of):
        return done
    with book.step("adapt") as told:
        request = replace(adapt_request(move, identity), images=tuple(images), reading=SourceOptions(format=spec_of(move).format))
        done = adapt(request, control, keys=keys)
        told["changes"] = done.changes
    work.set_adapted(of, done)
    return done


def adapt_request(move: Move, identity: Identity) -> AdaptRequest:
    """What the guest shall be ready for; the images are the caller's to name."""
    here = [nic.mac for nic in move.seen.parsed.machine.nics]
    there = identity.macs
    macs = tuple((old, new) for old, new in zip(here, there, strict=False) if old and new and old != new)
    options = move.request.guest
    return AdaptRequest(images=(), platform=PLATFORMS[move.target.world], key_files=options.key_files, macs=macs,
                        nics=tuple(mac for mac in there if mac), drivers=options.drivers, packages=options.packages,
                        rebuild_initramfs=options.rebuild_initramfs)
