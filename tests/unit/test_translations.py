"""Each hand-written description, translated into the other formats: the text is in a golden file, and so are the problems."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest

from imgtool.descriptions import DESCRIPTIONS, description
from imgtool.descriptions.fields import pattern, said
from imgtool.model.description import Parsed
from imgtool.model.devices import Backing, Bus, NetworkKind
from imgtool.model.machine import Machine
from imgtool.model.translation import PlacedFile, Retargeted, Translation, Wishes, World
from imgtool.retarget import retarget
from imgtool.steps.translate import WORLDS, rendered
from tests.golden import DESCRIPTIONS as DESCRIPTIONS_FOLDER
from tests.golden import TRANSLATIONS, check, inputs, problems

PATHS = inputs(*DESCRIPTIONS)
PAIRS = [(path, suffix) for path in PATHS for suffix in DESCRIPTIONS if suffix != path.suffix]
DERIVED = {"disks.wwn", "disks.boot_order"}
"""Made by the rules, or where the order of kinds becomes one of devices."""
NAMES = {f"{path.name}.to{suffix}": (path, suffix) for path, suffix in PAIRS}
NUMBER_OF_INPUTS = 60
UNIT = 4 << 20


def wishes(to: World, machine: Machine, folder: str) -> Wishes:
    """All that a machine names is there, in a folder of the target, and converted."""
    form = "qcow2" if to is World.KVM else "vmdk"
    stems = [Path(disk.path).stem for disk in machine.disks]
    stems = stems if all(stem.startswith("disk-") for stem in stems) else [f"disk-{number}" for number in range(len(stems))]
    disks = {disk.path: f"{folder}/{stem}.{form}" for disk, stem in zip(machine.disks, stems, strict=True)}
    images = {drive.path: f"{folder}/{number}.iso" for number, drive in enumerate(machine.drives)
              if drive.path and drive.backing is Backing.FILE}
    files = (*(PlacedFile(old, new, form) for old, new in disks.items()), *(PlacedFile(old, new) for old, new in images.items()))
    return Wishes(to=to, files=files, origin="/there", home=folder)


def translated(path: Path, suffix: str) -> tuple[Parsed, Retargeted, Translation]:
    parsed = description(path.suffix).parse(path.read_bytes())
    done = retarget(parsed.machine, wishes(WORLDS[suffix], parsed.machine, "/here"))
    return parsed, done, rendered(parsed, done, suffix)


@pytest.mark.parametrize(("path", "suffix"), NAMES.values(), ids=NAMES)
def test_becomes(path: Path, suffix: str) -> None:
    _, _, done = translated(path, suffix)
    name = f"{path.name}.to{suffix}"
    check(TRANSLATIONS / name, done.rendered.text.decode())
    check(TRANSLATIONS / f"{name}.problems", problems(done.problems))


@pytest.mark.parametrize(("path", "suffix"), NAMES.values(), ids=NAMES)
def test_nothing_is_lost_silently(path: Path, suffix: str) -> None:
    """What was said there is said here, or a note or a problem speaks of it."""
    parsed, done, translation = translated(path, suffix)
    words = "\n".join(one.what for one in translation.problems)
    noted = {pattern(note.field) for note in done.notes}
    again = {pattern(field) for field, _ in said(description(suffix).parse(translation.rendered.text).machine)}
    built_in = tuple(one for one in parsed.machine.controllers if one.bus is not Bus.IDE)
    before = {pattern(field) for field, value in said(replace(parsed.machine, controllers=built_in)) if value not in (False, ())}
    silent = {field for field in before - again - DERIVED
              if not any(field == one or field.startswith(f"{one}.") for one in noted) and field not in words
              and field.split(".")[0] not in words}
    assert silent <= MEANS_NOTHING


MEANS_NOTHING = {"hardware_version", "vc_uuid", "disks.capacity", "disks.populated", "nics.mac_kind", "nics.mac_check"}
"""VMware's own book-keeping; and what the image itself says."""


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.name)
@pytest.mark.parametrize("way", [(".xml", ".vmx", ".xml"), (".vmx", ".xml", ".vmx")], ids=["by vmx", "by xml"])
def test_there_and_back(path: Path, way: tuple[str, ...]) -> None:
    """Identity, sizes, addresses, files and their order survive a journey through the other world."""
    machine = description(path.suffix).parse(path.read_bytes()).machine
    seen = []
    for number, suffix in enumerate(way):
        moved = retarget(machine, wishes(WORLDS[suffix], machine, f"/{number}"))
        machine = rendered(Parsed(machine=machine), moved, suffix).machine
        machine = description(suffix).parse(description(suffix).render(machine).text).machine
        seen.append(kept(machine))
    assert seen[0] == seen[2]


def kept(machine: Machine) -> dict[str, object]:
    """What both worlds can say. Names lose slashes on libvirt, memory is a multiple of 4 MiB on ESXi, a NIC without a network is
    one whose cable is out, and a drive of the other host is an empty one."""
    return {
        "uuid": machine.uuid, "genid": machine.genid, "name": machine.name.replace("/", "_") or "machine",
        "description": machine.description, "cpus": machine.cpu.count, "memory": -(-machine.memory.size // UNIT),
        "firmware": (machine.firmware.kind, bool(machine.firmware.secure_boot)),
        "disks": {Path(disk.path).stem for disk in machine.disks},
        "macs": [nic.mac for nic in machine.nics],
        "connected": [nic.connected is not False and nic.network.kind is not NetworkKind.NONE for nic in machine.nics],
        "images": [drive.floppy for drive in machine.drives if drive.backing is Backing.FILE],
        "cdroms": sum(not drive.floppy for drive in machine.drives),
    }


def leaves(kind: Any, path: str = "") -> Iterator[str]:
    """Each field of Machine, as ``pattern`` writes it."""
    hints = get_type_hints(kind)
    for one in fields(kind):
        where = f"{path}.{one.name}" if path else one.name
        inner = next((part for part in (hints[one.name], *get_args(hints[one.name])) if is_dataclass(part)), None)
        if inner is None:
            yield where
        else:
            yield from leaves(inner, where)


def test_each_field_of_a_machine_is_in_a_golden_file() -> None:
    found = {pattern(line.partition(" = ")[0]) for path in DESCRIPTIONS_FOLDER.rglob("*.machine")
             for line in path.read_text(encoding="utf-8").splitlines()}
    assert set(leaves(Machine)) - found == set()


def test_there_are_enough_hand_written_descriptions() -> None:
    assert len(PATHS) >= NUMBER_OF_INPUTS


def test_no_golden_file_is_left_over() -> None:
    wanted = {name for one in NAMES for name in (one, f"{one}.problems")}
    assert {path.name for path in TRANSLATIONS.iterdir()} == wanted
