"""A domain XML as a Machine, and what of it has no place there."""

from __future__ import annotations

from imgtool.descriptions.domain_xml import read_devices, read_disks, read_host, read_nics
from imgtool.descriptions.domain_xml.document import HINT, Node, opened
from imgtool.descriptions.domain_xml.noise import leftovers
from imgtool.descriptions.domain_xml.words import HYPERVISORS, OVIRT, chipset
from imgtool.errors import DamagedError
from imgtool.model.description import Parsed
from imgtool.model.machine import Machine, Tools

OVIRT_IMAGES = "/rhev/data-center/"
FULL = "hvm"
"""``os/type`` of a machine with firmware; ``linux`` and ``xenpvh`` are Xen's other kinds, ``exe`` is a container."""


def parse(text: bytes) -> Parsed:
    """What ``virsh dumpxml`` printed, of QEMU, Xen or ESX, or what a person wrote. Raises DamagedError."""
    domain = opened(text)
    machine = machine_of(domain)
    return Parsed(machine=machine, trace=tuple(domain.notes.trace),
                  problems=(*domain.notes.problems, *leftovers(domain.notes, domain.element)))


def machine_of(domain: Node) -> Machine:
    """What a document says; its notes fill. Raises DamagedError."""
    hypervisor = _hypervisor(domain)
    devices = domain.child("devices") or Node(element=domain.element.makeelement("devices"), notes=domain.notes)
    controllers, usb = read_disks.controllers(devices)
    host = read_disks.Host(hypervisor=hypervisor, ovirt=_is_ovirt(domain),
                           models={one.number: one.model for one in controllers if one.bus == "scsi"})
    disks, drives = read_disks.disks(devices, host)
    name = domain.get("name", "name")
    if name is None:
        raise DamagedError("the domain has no name", hint=HINT)
    system = read_host.guest_os(domain)
    read_host.features(domain, system)
    uuid, vc_uuid, genid = read_host.uuids(domain, hypervisor)
    boot, boot_menu = read_host.boot(domain)
    return Machine(
        name=name, uuid=uuid, vc_uuid=vc_uuid, genid=genid, description=domain.raw("description", "description"), guest_os=system,
        cpu=read_host.cpu(domain), memory=read_host.memory(domain, hypervisor), firmware=read_host.firmware(domain),
        tpm=read_host.tpm(devices), accelerator=hypervisor, chipset=_chipset(domain),
        controllers=controllers, disks=disks, drives=drives, nics=read_nics.nics(devices, hypervisor),
        serials=read_devices.ports(devices, "serial", "serials"), parallels=read_devices.ports(devices, "parallel", "parallels"),
        videos=read_devices.videos(devices), graphics=read_devices.graphics(devices), sounds=read_devices.sounds(devices),
        usb=usb, inputs=read_devices.inputs(devices), passthrough=read_devices.passthrough(devices),
        shared_folders=read_devices.shared_folders(devices), watchdog=read_devices.watchdog(devices),
        rng=read_devices.rng(devices), balloon=read_devices.balloon(devices), tools=Tools(agent=read_devices.agent(devices)),
        boot=boot, boot_menu=boot_menu,
        clock=read_host.clock(domain), resources=read_host.resources(domain, hypervisor))


def _hypervisor(domain: Node) -> str:
    word = domain.get("@type", "accelerator")
    if word not in HYPERVISORS:
        raise DamagedError(f"a domain of type {word}: only {', '.join(HYPERVISORS)} are machines of this kind",
                           hint="containers and other hypervisors are not read")
    return word


def _is_ovirt(domain: Node) -> bool:
    tags = (str(one.tag) for one in domain.element.iterfind("metadata/*"))
    sources = (one.get("file") or one.get("dev") or "" for one in domain.element.iterfind("devices/disk/source"))
    return any(tag.startswith(f"{{{OVIRT}}}") for tag in tags) or any(path.startswith(OVIRT_IMAGES) for path in sources)


def _chipset(domain: Node) -> str | None:
    kind, word = domain.get("os/type"), domain.get("os/type/@machine", "chipset")
    node = domain.child("os")
    if kind not in (FULL, None) and node:
        node.problem(f"a paravirtual guest of Xen ({kind}): elsewhere it has firmware and virtual hardware",
                     "it needs a boot loader on its disk and a kernel with drivers: see `imgtool inspect`")
    found = chipset(word)
    if kind == FULL and word and found is None and node:
        node.problem(f"machine {word}: not carried over")
    return found
