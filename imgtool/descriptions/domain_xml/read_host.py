"""What a domain says besides its devices: system, CPU, memory, firmware, clock, shares of the host."""

from __future__ import annotations

import re
from dataclasses import replace
from uuid import UUID

from imgtool.descriptions.domain_xml.document import Node
from imgtool.descriptions.domain_xml.words import BOOT, HYPERV, OSINFO, TIMER, VMWARE
from imgtool.descriptions.guest_os import from_osinfo, is_windows
from imgtool.model.machine import (
    Clock,
    Cpu,
    CpuFeature,
    Firmware,
    FirmwareKind,
    GuestOs,
    Memory,
    Resources,
    Timer,
    Topology,
    Tpm,
)

MAX_CPUS, MAX_SLOTS = 1 << 16, 1 << 16
MAX_PARTS = 1024
"""Of a list of processors: each costs as much as the whole."""
UEFI_FILE = re.compile(r"OVMF|AAVMF|edk2|efi", re.IGNORECASE)
"""How distributions name the file of UEFI for QEMU."""
HEX = 16
OFFSETS = ("utc", "localtime")
"""A zone of its own, or a fixed time, is a problem of its own."""


def guest_os(domain: Node) -> GuestOs:
    """The id that virt-install and others leave in the metadata, and the architecture."""
    url = None
    metadata = domain.child("metadata", "guest_os")
    for path in (f"{{{OSINFO}}}libosinfo", f"{{{OSINFO}}}os"):
        metadata = metadata.child(path) if metadata else None
    if metadata:
        url = metadata.get("@id", "id")
    system = from_osinfo(url) if url else GuestOs()
    return replace(system, arch=domain.get("os/type/@arch", "guest_os.arch") or GuestOs().arch)


def uuids(domain: Node, hypervisor: str) -> tuple[str | None, str | None, str | None]:
    """BIOS, vCenter and generation id. libvirt 11 keeps vCenter's in ``uuid``, and the BIOS's in ``hwuuid``."""
    hardware = domain.child("hwuuid") is not None
    bios = domain.get("hwuuid", "uuid") if hardware else domain.get("uuid", "uuid")
    vcenter = domain.get("uuid", "vc_uuid") if hardware else None
    generation = _uuid(domain, "genid", domain.get("genid", "genid"))
    if generation and hypervisor == VMWARE:
        generation = _swapped(generation)
    return _uuid(domain, "uuid", bios), _uuid(domain, "uuid", vcenter), generation


def _uuid(domain: Node, tag: str, text: str | None) -> str | None:
    if text is None:
        return None
    try:
        return str(UUID(text))
    except ValueError:
        domain.problem(f"{tag} {text[:40]!r} is no uuid: not carried over")
        return None


def _swapped(text: str) -> str:
    """libvirt's ESX driver prints the two numbers of a ``.vmx`` in a row; the guest sees their bytes, the lowest first."""
    digits = UUID(text).hex
    return str(UUID(bytes_le=b"".join(int(half, HEX).to_bytes(8, "little") for half in (digits[:HEX], digits[HEX:]))))


def cpu(domain: Node) -> Cpu:
    """``vcpu`` is the largest number, ``current`` how many are on."""
    maximum = domain.number("vcpu", "cpu.count", low=1, high=MAX_CPUS) or 1
    count = domain.number("vcpu/@current", "cpu.count", low=1, high=MAX_CPUS) or maximum
    node = domain.child("cpu", "cpu")
    found = Cpu(count=count, maximum=maximum if maximum != count else None)
    if maximum != count:
        domain.said("cpu.maximum", "/domain/vcpu", str(maximum))
    if node is None:
        return found
    features = tuple(_feature(one.of(f"cpu.features[{number}]")) for number, one in enumerate(node.children("feature")))
    model = node.get("model", "model")
    mode = node.get("@mode", "mode") or ("custom" if model else None)
    cells = node.element.findall("numa/cell")
    if len(cells) == 1 and (numa := node.child("numa")):
        numa.skip()
    return replace(found, mode=mode, model=model, features=features, topology=_topology(node))


def _feature(node: Node) -> CpuFeature:
    return CpuFeature(name=node.get("@name", "name") or "", policy=node.get("@policy", "policy") or "require")


def _topology(cpu: Node) -> Topology | None:
    node = cpu.child("topology", "cpu.topology")
    if node is None:
        return None
    sockets, dies, cores, threads = (node.number(f"@{part}", part, low=1, high=MAX_CPUS) or 1
                                     for part in ("sockets", "dies", "cores", "threads"))
    return Topology(sockets=sockets, dies=dies, cores=cores, threads=threads)


def memory(domain: Node, hypervisor: str) -> Memory:
    """``currentMemory`` of libvirt's ESX driver is a limit, not a balloon: see ``resources``."""
    size = domain.size("memory", "memory.size") or 0
    current = domain.size("currentMemory", None if hypervisor == VMWARE else "memory.current")
    backing = domain.child("memoryBacking", "memory")
    return Memory(
        size=size, current=current if hypervisor != VMWARE and current != size else None,
        maximum=domain.size("maxMemory", "memory.maximum"),
        slots=domain.number("maxMemory/@slots", "memory.slots", high=MAX_SLOTS),
        huge_pages=backing.has("hugepages", "huge_pages") if backing else None)


def firmware(domain: Node) -> Firmware:
    """UEFI, where libvirt shall choose a file of it, or where the file that is given has such a name."""
    node = domain.child("os", "firmware")
    if node is None:
        return Firmware()
    word, loader = node.get("@firmware", "kind"), node.get("loader")
    uefi = word == "efi" or (word is None and loader is not None
                             and (node.get("loader/@type") == "pflash" or bool(UEFI_FILE.search(loader))))
    secure = _secure_boot(node) if uefi else None
    if loader and uefi:
        node.said("kind", f"{node.path}/loader", loader)
        secure = node.yes("loader/@secure", "secure_boot") if secure is None else secure
    return Firmware(kind=FirmwareKind.UEFI if uefi else FirmwareKind.BIOS, secure_boot=secure,
                    nvram=node.get("nvram", "nvram") or node.get("nvram/source/@file", "nvram"))


def _secure_boot(node: Node) -> bool | None:
    """The feature ``enrolled-keys`` has the same value, unless it was written by hand."""
    names = node.child("firmware")
    found: dict[str, bool | None] = {}
    for feature in names.children("feature") if names else ():
        name = feature.get("@name") or ""
        found[name] = feature.yes("@enabled", "secure_boot" if name == "secure-boot" else None)
    if names and found.get("secure-boot") and found.get("enrolled-keys") is False:
        names.problem("secure boot without keys, so that the guest boots anything", "it is written with Microsoft's keys")
    return found.get("secure-boot")


def tpm(devices: Node) -> Tpm | None:
    """An emulated one. What is sealed in it (BitLocker's key!) stays where it is."""
    node = devices.child("tpm", "tpm")
    if node is None:
        return None
    backend = node.get("backend/@type") or "emulator"
    if backend == "passthrough":
        node.problem("the host's own TPM: the machine gets an emulated one", "unseal before what is sealed in it: BitLocker")
        if device := node.child("backend"):
            device.skip()
    return Tpm(version=node.get("backend/@version", "version"), model=node.get("@model", "model"))


def boot(domain: Node) -> tuple[tuple[str, ...], bool | None]:
    """Kinds of device in the order they are tried, and whether there is a menu."""
    node = domain.child("os")
    if node is None:
        return (), None
    kinds: list[str] = []
    for one in node.children("boot"):
        word = one.of("").get("@dev", f"boot[{len(kinds)}]") or ""
        if word in BOOT:
            kinds.append(BOOT[word])
        else:
            one.problem(f"{word[:40]!r} is no device that is known: left out of the boot order")
    return tuple(kinds), node.yes("bootmenu/@enable", "boot_menu")


def clock(domain: Node) -> Clock:
    """Its offset, and timers."""
    node = domain.child("clock", "clock")
    if node is None:
        return Clock()
    timers = []
    for number, one in enumerate(node.children("timer")):
        here = one.of(f"clock.timers[{number}]")
        timers.append(Timer(name=here.get("@name", "name") or "", present=here.yes("@present", "present"),
                            policy=here.get(f"@{TIMER}", "policy")))
    offset = node.get("@offset", "offset")
    if offset == "variable":  # the guest sets it, beginning at
        offset = node.get("@basis", "offset") or "utc"
    return Clock(offset=offset if offset in OFFSETS else None, timers=tuple(timers))


def resources(domain: Node, hypervisor: str) -> Resources:
    """Shares are libvirt's weight, as they stand. The limits of libvirt's ESX driver stand elsewhere than QEMU's."""
    size, current = domain.size("memory"), domain.size("currentMemory")
    limited = hypervisor == VMWARE and current != size
    return Resources(
        cpu_shares=domain.number("cputune/shares", "resources.cpu_shares"),
        cpu_affinity=_processors(domain, domain.get("vcpu/@cpuset", "resources.cpu_affinity")),
        memory_limit=current if limited else domain.size("memtune/hard_limit", "resources.memory_limit"),
        memory_reservation=domain.size("memtune/min_guarantee", "resources.memory_reservation"))


def _processors(domain: Node, text: str | None) -> tuple[int, ...]:
    """``0-3,^2,8`` → 0, 1, 3, 8."""
    chosen: set[int] = set()
    parts = (text or "").replace(" ", "").split(",")
    for part in parts:
        match = re.fullmatch(r"(\^?)([0-9]{1,4})(?:-([0-9]{1,4}))?", part) if len(parts) <= MAX_PARTS else None
        if match:
            numbers = range(int(match[2]), int(match[3] or match[2]) + 1)
            chosen = chosen.difference(numbers) if match[1] else chosen.union(numbers)
        elif part:
            domain.problem(f"vcpu/@cpuset {(text or '')[:80]!r} is no list of processors: not carried over")
            return ()
    return tuple(sorted(chosen))


def features(domain: Node, system: GuestOs) -> None:
    """Hyper-V enlightenments are written for every Windows guest: there they are no loss."""
    node = domain.child("features")
    enlightened = node.child("hyperv") if node else None
    if enlightened is None or not is_windows(system):
        return
    for one in enlightened.peek("*"):
        if one.tag in HYPERV:
            one.skip()
