"""An OVF → Machine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

from lxml import etree

from imgtool.descriptions.guest_os import from_cim, from_vmware
from imgtool.descriptions.ovf import devices, storage, words, xml
from imgtool.descriptions.ovf.dialects import OVIRT_KINDS, ovirt, virtualbox, virtualbox_os
from imgtool.descriptions.ovf.item import ITEMS, Item, Notes, bounded, config, read_item, said, unknown
from imgtool.descriptions.ovf.units import number, truth, unit
from imgtool.errors import DamagedError, RefusedError
from imgtool.model.description import Parsed
from imgtool.model.devices import Backing, DiskSlot, Drive
from imgtool.model.machine import (
    Cpu,
    Firmware,
    FirmwareKind,
    GuestOs,
    Machine,
    Memory,
    Resources,
    Tools,
    Topology,
    Tpm,
)

SYSTEMS = ("VirtualSystem", "Content")
CONFIG = ("firmware", "bootOptions.efiSecureBootEnabled", "cpuHotAddEnabled", "cpuHotRemoveEnabled", "memoryHotAddEnabled",
          "nestedHVEnabled", "tools.syncTimeWithHost", "tools.toolsUpgradePolicy", *words.SCRIPTS)
MAX_CPUS = 1 << 16
MAX_MEMORY = 1 << 50
MIB = 1 << 20


def parse(text: bytes) -> Parsed:
    """Raises DamagedError, RefusedError (several machines, encrypted, delta disks)."""
    root, notes = xml.read(text), Notes()
    system = only_system(root)
    hardware = xml.section(system, "VirtualHardwareSection")
    if hardware is None:
        raise DamagedError("the OVF describes no hardware (VirtualHardwareSection)", "only a machine can be converted")
    properties = _properties(system, notes)
    items = configured(root, hardware, notes)
    machine = Machine(name=xml.text(xml.child(system, "Name")) or xml.attribute(system, "id") or "machine")
    notes.read("name", xml.child(system, "Name"), machine.name)
    machine = _system_sections(system, machine, notes)
    controllers = devices.controllers(items, notes)
    machine = replace(_hardware(hardware, items, machine, notes), controllers=tuple(controllers.values()))
    machine = _storage(root, items, devices.Places(controllers, Counter()), properties, machine, notes)
    machine = ovirt(system, [item.element for item in items], virtualbox(system, machine, notes), notes)
    _others(root, system, notes)
    return Parsed(machine=machine, trace=tuple(notes.trace), problems=tuple(notes.problems))


def only_system(root: etree._Element) -> etree._Element:
    """The only machine. Raises RefusedError where there are several, DamagedError where there is none."""
    found = [one for one in root.iter() if xml.local(one) in SYSTEMS]
    if any(xml.local(one) in ("EncryptedData", "EncryptionSection") for one in root.iter()):
        raise RefusedError("the OVF is encrypted", "export it without encryption")
    if not found:
        raise DamagedError("the OVF has no machine in it (VirtualSystem)")
    if len(found) > 1:
        names = ", ".join(repr(xml.word(xml.child(one, "Name")) or xml.attribute(one, "id")) for one in found[:10])
        raise RefusedError(f"the OVF has {len(found)} machines ({names}): imgtool takes one", "export only one machine at a time")
    return found[0]


def _properties(system: etree._Element, notes: Notes) -> dict[str, str]:
    """Defaults of the properties that the package asks for, by key. What they do inside the guest is not carried over."""
    found: dict[str, str] = {}
    for product in xml.sections(system, "ProductSection"):
        pairs = [(xml.attribute(one, "key") or "", xml.attribute(one, "value")) for one in xml.children(product, "Property")]
        found.update({key: value for key, value in pairs if value})
        if pairs:
            keys = ", ".join(key for key, _ in pairs[:10])
            notes.problem(f"the package asks for settings ({keys}), which the guest reads from vSphere",
                          "set them inside the guest")
    return found


def configured(root: etree._Element, hardware: etree._Element, notes: Notes) -> list[Item]:
    """The devices of the default configuration."""
    section = next((one for name in ("DeploymentOptionSection",) for one in xml.sections(root, name)), None)
    options = [] if section is None else list(xml.children(section, "Configuration"))
    chosen = next((one for one in options if truth(xml.attribute(one, "default"))), options[0] if options else None)
    taken = xml.attribute(chosen, "id")
    if len(options) > 1:
        names = ", ".join(repr(xml.attribute(one, "id")) for one in options)
        notes.problem(f"the package offers configurations ({names}): {taken!r} is taken",
                      "change the machine at the target for another")
    found: dict[str, Item] = {}
    for element in bounded(xml.children(hardware, *ITEMS), "devices"):
        wanted = (xml.attribute(element, "configuration") or "").split()
        item = read_item(element)
        if not wanted or taken in wanted:  # an Item of a configuration takes the place of the common one
            found[item.get("instanceid") or f"#{len(found)}"] = item
    return list(found.values())


def _system_sections(system: etree._Element, machine: Machine, notes: Notes) -> Machine:
    annotation = xml.section(system, "AnnotationSection")
    text = xml.text(xml.child(annotation, "Annotation"))
    notes.read("description", annotation, "…")
    installed = xml.section(system, "OperatingSystemSection")
    machine = replace(machine, description=text, guest_os=_guest_os(installed, notes))
    boot = xml.section(system, "BootOrderSection")
    order = tuple(dict.fromkeys(words.BOOT[word] for word in (xml.attribute(boot, "type") or "").split() if word in words.BOOT))
    return replace(machine, boot=order)


def _guest_os(section: etree._Element | None, notes: Notes) -> GuestOs:
    vmware = xml.attribute(section, "osType")
    box = xml.word(xml.child(section, "OSType"))
    cim = number(xml.attribute(section, "id"))
    described = xml.word(xml.child(section, "Description")) or ""
    found = from_vmware(vmware) if vmware else virtualbox_os(box) if box else from_cim(cim) if cim is not None else GuestOs()
    if not vmware and not box and described.lower() in OVIRT_KINDS:
        found = OVIRT_KINDS[described.lower()]
    version = xml.attribute(section, "version")
    notes.read("guest_os", section, vmware or box or cim)
    return replace(found, release=version) if version and "." in version and not found.word else found


def _hardware(hardware: etree._Element, items: list[Item], machine: Machine, notes: Notes) -> Machine:
    keys = config(hardware)
    unknown(keys, CONFIG, "the machine", notes)
    _extra(hardware, notes)
    kinds: dict[int, list[Item]] = {}
    for item in items:
        kinds.setdefault(item.type, []).append(item)
    machine = _settings(keys, _processors(kinds, machine, notes))
    version = xml.word(xml.child(xml.child(hardware, "System"), "VirtualSystemType")) or ""
    known = [number(word[4:]) for word in version.lower().replace(",", " ").split() if word.startswith("vmx-")]
    notes.read("hardware_version", xml.child(hardware, "System"), version)
    _rest(items, notes)
    return replace(
        machine, hardware_version=max((one for one in known if one is not None), default=None),
        nics=devices.nics(kinds.get(words.NIC, []), notes),
        serials=devices.ports(items, words.SERIAL, notes), parallels=devices.ports(items, words.PARALLEL, notes),
        videos=tuple(devices.video(item, notes) for item in kinds.get(words.VIDEO, [])),
        usb=tuple(words.USBS.get(item.subtype, "uhci") for item in kinds.get(words.USB, [])),
        sounds=tuple(words.SOUNDS.get(item.subtype, item.subtype) for item in kinds.get(words.SOUND, [])),
        tpm=Tpm(version="2.0") if any(item.subtype == words.VTPM for item in items) else None)


def _extra(hardware: etree._Element, notes: Notes) -> None:
    """``vmw:ExtraConfig``: lines of the .vmx. Values are not shown, since some are passwords."""
    for one in xml.children(hardware, "ExtraConfig"):
        key = xml.attribute(one, "key") or "?"
        if key.lower() == "nvram":
            notes.problem("the package has the variables of the firmware (nvram), which no other hypervisor reads",
                          "the guest's boot entries are made again from its boot loader's default path")
        elif not words.EXTRA_NOISE.fullmatch(key.lower()):
            notes.problem(f"vmw:ExtraConfig {key}, a line of the .vmx, is not carried over",
                          "set it again at the target, if it is needed")


def _processors(kinds: Mapping[int, list[Item]], machine: Machine, notes: Notes) -> Machine:
    """vCPUs and memory, with their shares. Raises DamagedError for impossible numbers."""
    count, maximum, topology, memory, resources = 1, None, None, 0, Resources()
    for item in kinds.get(words.CPU, [])[:1]:
        count = _quantity(item, "processors", 1, notes)
        maximum = item.number("max_num_of_vcpus")  # oVirt
        cores = item.number("corespersocket") or item.number("cpu_per_socket")
        topology = _topology(maximum or count, cores, item.number("threads_per_cpu") or 1, notes)
        if "hertz" in (item.get("allocationunits") or "hertz"):  # XenServer counts otherwise
            resources = said(resources, cpu_shares=item.number("weight"), cpu_reservation=item.number("reservation"),
                             cpu_limit=item.number("limit"))
        notes.read("cpu.count", item.elements.get("virtualquantity"), count)
        unknown(item.config, (), item.title, notes)
    for item in kinds.get(words.MEMORY, [])[:1]:
        factor = unit(item.get("allocationunits") or item.get("virtualquantityunits") or "megabytes")
        if factor is None:
            raise DamagedError(f"the OVF counts memory in {item.get('allocationunits')!r}, which is no unit")
        memory = _quantity(item, "memory", 0, notes) * factor
        reservation, limit = (None if (one := item.number(key)) is None else one * factor for key in ("reservation", "limit"))
        resources = said(resources, memory_shares=item.number("weight"), memory_reservation=reservation, memory_limit=limit)
        notes.read("memory.size", item.elements.get("virtualquantity"), memory)
        unknown(item.config, (), item.title, notes)
    if not 0 < count <= MAX_CPUS or memory > MAX_MEMORY:
        raise DamagedError(f"the OVF asks for {count} processors and {memory} bytes of memory: no machine has that")
    return replace(machine, cpu=Cpu(count=count, maximum=maximum, topology=topology), memory=Memory(size=memory),
                   resources=resources)


def _quantity(item: Item, what: str, usual: int, notes: Notes) -> int:
    found = item.number("virtualquantity")
    if found is None:
        notes.problem(f"how much there is of {what} cannot be read: {item.get('virtualquantity')!r}", f"{usual} is taken")
    return usual if found is None else found


def _topology(count: int, cores: int | None, threads: int, notes: Notes) -> Topology | None:
    if not cores:
        return None
    if count % (cores * threads):
        notes.problem(f"{count} processors cannot be sockets of {cores} cores", "the topology is left out")
        return None
    return Topology(sockets=count // (cores * threads), cores=cores, threads=threads)


def _settings(keys: Mapping[str, str], machine: Machine) -> Machine:
    """``vmw:Config`` of the whole machine."""
    def flag(key: str) -> bool | None:
        return truth(keys.get(key.lower()))

    kind = FirmwareKind.UEFI if keys.get(words.FIRMWARE, "").lower() == "efi" else FirmwareKind.BIOS
    return replace(
        machine, firmware=Firmware(kind=kind, secure_boot=flag(words.SECURE_BOOT)),
        cpu=replace(machine.cpu, hot_add=flag("cpuHotAddEnabled"), hot_remove=flag("cpuHotRemoveEnabled"),
                    nested=flag("nestedHVEnabled")),
        memory=replace(machine.memory, hot_add=flag("memoryHotAddEnabled")),
        tools=Tools(sync_time=flag("tools.syncTimeWithHost"), upgrade=keys.get("tools.toolsupgradepolicy"),
                    scripts=tuple(ours for key, ours in words.SCRIPTS.items() if flag(key))))


def _rest(items: list[Item], notes: Notes) -> None:
    """A problem for each device that nothing above reads."""
    read = {words.CPU, words.MEMORY, *words.CONTROLLERS, words.NIC, words.FLOPPY, words.CD, words.DVD, words.DISK, words.USB,
            words.VIDEO, words.SOUND, *words.PORTS}
    for item in items:
        if item.type in read or devices.is_disk(item) or item.subtype in (words.VTPM, *words.NO_DEVICES) or item.get("type"):
            continue
        kind = words.KINDS.get(item.type, f"device of type {item.type}")
        notes.problem(f"{item.title} ({kind}) is not carried over", "add such a device at the target, if it is needed")


def _storage(root: etree._Element, items: list[Item], places: devices.Places, properties: dict[str, str], machine: Machine,
             notes: Notes) -> Machine:
    """Disks and drives, plugged into their controllers, in the order of the OVF."""
    files = storage.references(root)
    known = storage.disks(root, files, properties, notes)
    hrefs = {name: file.href for name, file in files.items()}
    slots: list[DiskSlot] = []
    drives: list[Drive] = []
    for item in items:
        if devices.is_disk(item):
            slots.append(devices.place(item, _meant(item, known, hrefs), places, notes))
        elif item.type in (words.CD, words.DVD, words.FLOPPY):
            drives.append(devices.drive(item, hrefs, places, notes))
    used = {_disk_id(item, known) for item in items if devices.is_disk(item)}
    for name in (name for name in known if name not in used):
        notes.problem(f"the disk {name!r} belongs to no device: it is left out", "attach it by hand, if the machine needs it")
    return replace(machine, disks=tuple(slots), drives=tuple(drives))


def _disk_id(item: Item, known: Mapping[str, DiskSlot]) -> str | None:
    """Which disk an Item means: ``ovf:/disk/ID``; oVirt writes ``GROUP/ID``."""
    resource = item.get("hostresource") or ""
    match = devices.REFERENCE.fullmatch(resource)
    name = match[2] if match else resource
    return name if name in known else name.rpartition("/")[2]


def _meant(item: Item, known: Mapping[str, DiskSlot], files: Mapping[str, str]) -> DiskSlot:
    """Raises DamagedError where the Item names no disk of the OVF."""
    if (name := _disk_id(item, known)) in known:
        return known[str(name)]
    match = devices.REFERENCE.fullmatch(item.get("hostresource") or "")
    if match and match[1] == "file" and match[2] in files:
        return DiskSlot(path=files[match[2]], backing=Backing.FILE)
    raise DamagedError(f"{item.title} refers to {item.get('hostresource')!r}, which is not a disk of the OVF")


def _others(root: etree._Element, system: etree._Element, notes: Notes) -> None:
    """Sections that are for people, or for vSphere alone."""
    for name, what, hint in (("EulaSection", "a licence that its user must accept", "read it"),
                             ("InstallSection", "a first start in which the guest configures itself",
                              "configure the guest yourself"),
                             ("StartupSection", "an order in which machines start", None)):
        if xml.section(system, name) is not None or xml.section(root, name) is not None:
            notes.problem(f"the package has {what} ({name}), which is not carried over", hint)
