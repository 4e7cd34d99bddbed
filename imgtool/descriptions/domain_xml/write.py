"""A Machine as a domain XML for libvirt's QEMU driver.

Written is what is said, plus what follows from it: ACPI, SMM for secure boot, Hyper-V enlightenments for a Windows guest, a
NUMA node where memory can be plugged in, SPICE's channel. Choices of hardware are ``retarget``'s.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import groupby

from lxml import etree

from imgtool.descriptions.domain_xml import patch, write_devices, write_disks
from imgtool.descriptions.domain_xml.elements import REPLACEMENT, add, writable, yes_no
from imgtool.descriptions.domain_xml.held import HINTS, HOLDS, MEANINGLESS
from imgtool.descriptions.domain_xml.read import parse
from imgtool.descriptions.domain_xml.words import BOOT, HYPERV, HYPERVISORS, OSINFO, SPINLOCK_RETRIES, TIMER, back
from imgtool.descriptions.fields import losses, said
from imgtool.descriptions.guest_os import from_osinfo, is_windows, to_osinfo
from imgtool.model.description import Rendered
from imgtool.model.machine import Clock, Cpu, FirmwareKind, GuestOs, Machine, Memory
from imgtool.model.problem import Problem

KVM = "kvm"
KIB = 1024
SLOTS = 16
"""For memory that can be plugged in, where nobody says how many: oVirt's number."""
MACHINES = {"q35": "q35", "i440fx": "pc", "virt": "virt"}
X86 = ("x86_64", "i686")


def render(machine: Machine, *, onto: bytes | None = None) -> Rendered:
    """``onto``: a domain XML in which only what must change is changed. Raises DamagedError where it is none."""
    clean, problems = _named(machine)
    root = etree.Element("domain", nsmap={})
    problems += tuple(_domain(root, clean))
    lost = losses(clean, HOLDS | MEANINGLESS, where="a domain XML", hints=HINTS)
    if onto is None:
        etree.indent(root)
        return _rendered(etree.tostring(root, encoding="utf-8") + b"\n", (*problems, *lost))
    old = parse(onto).machine
    base = etree.Element("domain", nsmap={})
    before = set(_domain(base, _named(old)[0]))
    problems = tuple(one for one in problems if one not in before)  # what cannot be written, and is there already, stays
    kept = {path for path, value in said(old) if (path, value) in set(said(clean))}
    lost = tuple(one for one in lost if one.what.partition(" = ")[0] not in kept)
    text, by_hand = patch.patched(onto, base, root)
    return _rendered(text, (*problems, *lost, *by_hand))


def _rendered(text: bytes, problems: tuple[Problem, ...]) -> Rendered:
    return Rendered(text=text, trace=parse(text).trace, problems=problems)


def _named(machine: Machine) -> tuple[Machine, tuple[Problem, ...]]:
    """Without characters that XML forbids, and with a name that libvirt takes."""
    clean, fields = writable(machine)
    problems = tuple(Problem(what=f"{field}: characters that XML cannot hold are written as {REPLACEMENT}") for field in fields)
    name = " ".join(clean.name.replace("/", "_").split()) or "unnamed"
    if name != clean.name:
        problems += (Problem(what=f"name = {clean.name!r}: written as {name!r}", hint="libvirt takes no slashes and line ends"),)
    return replace(clean, name=name), problems


def _domain(root: etree._Element, machine: Machine) -> Iterator[Problem]:
    root.set("type", machine.accelerator if machine.accelerator in HYPERVISORS else KVM)
    if machine.accelerator not in (*HYPERVISORS, None):
        yield Problem(what=f"accelerator = {machine.accelerator}: written as {KVM}", hint=f"libvirt has {', '.join(HYPERVISORS)}")
    add(root, "name", machine.name)
    for tag, words in (("uuid", machine.uuid), ("genid", machine.genid), ("description", machine.description)):
        if words is not None:
            add(root, tag, words)
    yield from _guest_os(root, machine.guest_os)
    _memory(root, machine.memory, machine.cpu)
    _vcpu(root, machine)
    yield from _os(root, machine)
    _features(root, machine)
    yield from _cpu(root, machine)
    _clock(root, machine.clock)
    devices = add(root, "devices")
    yield from write_disks.disks(devices, machine)
    write_disks.controllers(devices, machine)
    yield from write_devices.nics(devices, machine)
    yield from write_devices.ports(devices, machine.serials, "serial", "serials")
    yield from write_devices.ports(devices, machine.parallels, "parallel", "parallels")
    write_devices.screens(devices, machine)
    write_devices.others(devices, machine)
    yield from write_devices.passthrough(devices, machine)


def _guest_os(root: etree._Element, system: GuestOs) -> Iterator[Problem]:
    if system == GuestOs(arch=system.arch):
        return
    url = to_osinfo(system)
    if url is None:
        yield Problem(what=f"guest_os = {system.word or system.id}: libosinfo has no id for it",
                      hint="the guest itself loses nothing")
        return
    if replace(from_osinfo(url), arch=system.arch) != system:
        yield Problem(what=f"guest_os = {system.id} {system.release or ''}: written as {url}")
    name = f"{{{OSINFO}}}libosinfo"
    info = etree.SubElement(add(root, "metadata"), name, nsmap={"libosinfo": OSINFO})
    add(info, f"{{{OSINFO}}}os", id=url)


def _memory(root: etree._Element, memory: Memory, cpu: Cpu) -> None:
    if memory.maximum is not None:
        _size(root, "maxMemory", memory.maximum).set("slots", str(memory.slots or SLOTS))
    _size(root, "memory", memory.size)
    if memory.current is not None:
        _size(root, "currentMemory", memory.current)
    if memory.huge_pages:
        add(add(root, "memoryBacking"), "hugepages")


def _size(parent: etree._Element, tag: str, size: int) -> etree._Element:
    return add(parent, tag, size if size % KIB else size // KIB, unit="b" if size % KIB else "KiB")


def _most(cpu: Cpu) -> int:
    return max(cpu.maximum or cpu.count, cpu.count)


def _vcpu(root: etree._Element, machine: Machine) -> None:
    cpu, resources = machine.cpu, machine.resources
    most = _most(cpu)
    add(root, "vcpu", most, placement="static", cpuset=_ranges(resources.cpu_affinity) or None,
        current=cpu.count if most != cpu.count else None)
    if resources.cpu_shares is not None:
        add(add(root, "cputune"), "shares", resources.cpu_shares)
    if resources.memory_limit is not None:
        _size(add(root, "memtune"), "hard_limit", resources.memory_limit)


def _ranges(numbers: tuple[int, ...]) -> str:
    """0, 1, 2, 5 → ``0-2,5``."""
    runs = [[number for _, number in run] for _, run in groupby(enumerate(sorted(numbers)), key=lambda pair: pair[1] - pair[0])]
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)


def _os(root: etree._Element, machine: Machine) -> Iterator[Problem]:
    firmware = machine.firmware
    uefi = firmware.kind is FirmwareKind.UEFI
    node = add(root, "os", firmware="efi" if uefi else None)
    chipset = machine.chipset
    add(node, "type", "hvm", arch=machine.guest_os.arch, machine=MACHINES.get(chipset, chipset) if chipset else None)
    if uefi and firmware.secure_boot is not None:
        names = add(node, "firmware")
        for feature in ("secure-boot", "enrolled-keys"):
            add(names, "feature", enabled=yes_no(firmware.secure_boot), name=feature)
    ordered = any([one.boot_order for one in machine.disks] + [one.boot_order for one in machine.drives]
                  + [one.boot_order for one in machine.nics])
    for kind in () if ordered else machine.boot:
        add(node, "boot", dev=back(BOOT, kind))
    if ordered and machine.boot:
        yield Problem(what=f"boot = {', '.join(machine.boot)}: not written, since devices have a boot order of their own",
                      hint="libvirt takes only one of the two")
    if machine.boot_menu is not None:
        add(node, "bootmenu", enable=yes_no(machine.boot_menu))


def _features(root: etree._Element, machine: Machine) -> None:
    node = add(root, "features")
    add(node, "acpi")
    x86 = machine.guest_os.arch in X86
    if x86:
        add(node, "apic")
    if machine.firmware.kind is FirmwareKind.UEFI and machine.firmware.secure_boot:
        add(node, "smm", state="on")
    if x86 and is_windows(machine.guest_os):
        hyperv = add(node, "hyperv")
        for name in HYPERV:
            add(hyperv, name, state="on", retries=SPINLOCK_RETRIES if name == "spinlocks" else None)


def _cpu(root: etree._Element, machine: Machine) -> Iterator[Problem]:
    cpu, top, most = machine.cpu, machine.cpu.topology, _most(machine.cpu)
    node = add(root, "cpu", mode=cpu.mode)
    if cpu.model:
        add(node, "model", cpu.model, fallback="allow" if cpu.mode == "custom" else None)
    if top and top.sockets * top.dies * top.cores * top.threads == most:
        add(node, "topology", sockets=top.sockets, dies=top.dies, cores=top.cores, threads=top.threads)
    elif top:
        yield Problem(what=f"cpu.topology: {top.sockets} sockets of {top.dies} dies, {top.cores} cores and {top.threads} threads "
                      f"are not {most} CPUs: not written", hint="the guest sees one core a socket")
    for feature in cpu.features:
        add(node, "feature", policy=feature.policy, name=feature.name)
    if machine.memory.maximum is not None:
        cpus = f"0-{most - 1}" if most > 1 else "0"
        add(add(node, "numa"), "cell", id=0, cpus=cpus, memory=machine.memory.size // KIB, unit="KiB")
    if not len(node) and not node.attrib:
        root.remove(node)


def _clock(root: etree._Element, clock: Clock) -> None:
    if clock.offset is None and not clock.timers:
        return
    node = add(root, "clock", offset=clock.offset or "utc")
    for timer in clock.timers:
        add(node, "timer", name=timer.name, **{TIMER: timer.policy}, present=yes_no(timer.present))
