"""Network cards, ports, screens and all other devices, as elements."""

from __future__ import annotations

import re
from collections.abc import Iterator

from lxml import etree

from imgtool.descriptions.domain_xml.elements import add, yes_no
from imgtool.descriptions.domain_xml.words import AGENT, NETWORKS, SOUNDS, SPICE, back
from imgtool.model.devices import Graphics, Network, NetworkKind, Nic, Passthrough, Port
from imgtool.model.machine import Machine
from imgtool.model.problem import Problem

KIB = 1024
KILOBYTES = 8000
"""Bits of libvirt's unit of bandwidth, which is tc's kilobyte."""
TYPES = {kind: word for word, kind in NETWORKS.items()}
SOURCE = {NetworkKind.BRIDGE: "bridge", NetworkKind.NETWORK: "network", NetworkKind.DIRECT: "dev"}
"""The attribute of ``source`` that has the network's name."""
WITH_PATH = {"device": "dev", "file": "file", "pipe": "pipe", "unix": "unix"}
WITH_HOST = {"tcp": "raw", "telnet": "telnet", "tls": "tls", "udp": None}
"""Kinds of port that have a host and a port; and the protocol on it."""
ALONE = ("pty", "null", "spicevmc")
PCI = re.compile(r"([0-9a-f]{4}):([0-9a-f]{2}):([0-9a-f]{2})\.([0-7])")
USB = re.compile(r"([0-9a-f]{4}):([0-9a-f]{4})")
SCSI = re.compile(r"(scsi_host\d+):(\d+):(\d+):(\d+)")
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def nics(devices: etree._Element, machine: Machine) -> Iterator[Problem]:
    """A problem for each card whose network libvirt's QEMU driver does not have."""
    for number, one in enumerate(machine.nics):
        if why := _unknown(one.network):
            yield Problem(what=f"nics[{number}].network.kind = {one.network.kind}: the card is not written, {why}",
                          hint="choose a network for it: --map-network NAME=BRIDGE", fatal=True)
        else:
            _nic(devices, one)


def _unknown(network: Network) -> str | None:
    if network.kind in SOURCE:
        return None if network.name else "its name is not said"
    if network.kind is NetworkKind.NAT or (network.kind is NetworkKind.CUSTOM and network.device and not network.name):
        return None
    return "libvirt's QEMU driver has no such network"


def _nic(devices: etree._Element, one: Nic) -> None:
    element = add(devices, "interface", type=TYPES[one.network.kind])
    if one.mac:
        add(element, "mac", address=one.mac)
    if one.network.kind in SOURCE:
        mode = "bridge" if one.network.kind is NetworkKind.DIRECT else None
        add(element, "source", **{SOURCE[one.network.kind]: one.network.name}, portgroup=one.network.port_group, mode=mode)
    if one.network.vlan is not None:
        add(add(element, "vlan"), "tag", id=one.network.vlan)
    if one.network.virtual_port:
        add(element, "virtualport", type=one.network.virtual_port)
    if one.network.device:
        add(element, "target", dev=one.network.device)
    if one.model:
        add(element, "model", type=one.model)
    if one.connected is not None:
        add(element, "link", state="up" if one.connected else "down")
    if one.mtu is not None:
        add(element, "mtu", size=one.mtu)
    if one.limit:
        bandwidth = add(element, "bandwidth")
        for way in ("inbound", "outbound"):
            add(bandwidth, way, average=max(1, one.limit // KILOBYTES))
    if one.boot_order:
        add(element, "boot", order=one.boot_order)


def ports(devices: etree._Element, found: tuple[Port, ...], tag: str, field: str) -> Iterator[Problem]:
    """``serial`` or ``parallel``; libvirt itself makes the first serial port the console."""
    for index, one in enumerate(found):
        source = _port_source(one)
        if source is None:
            yield Problem(what=f"{field}[{index}].kind = {one.kind}, path = {one.path}: the port is not written",
                          hint="give it a kind that libvirt has: pty, file, tcp with host:port")
            continue
        kind = "tcp" if one.kind in WITH_HOST and one.kind != "udp" else WITH_PATH.get(one.kind, one.kind)
        element = add(devices, tag, type=kind)
        if source:
            add(element, "source", **source)
        if protocol := WITH_HOST.get(one.kind):
            add(element, "protocol", type=protocol)
        add(element, "target", port=one.number)


def _port_source(one: Port) -> dict[str, str | None] | None:
    """Attributes of ``source``; None where libvirt has no such port."""
    mode = None if one.server is None else "bind" if one.server else "connect"
    if one.kind in ALONE:
        return {}
    if one.kind in WITH_PATH and one.path:
        return {"path": one.path, "mode": mode}
    host, colon, service = (one.path or "").rpartition(":")
    if one.kind in WITH_HOST and colon and service.isdecimal():
        return {"mode": mode or "connect", "host": host, "service": service}
    return None


def screens(devices: etree._Element, machine: Machine) -> None:
    """Graphics cards, and where a person sees them."""
    for video in machine.videos:
        model = add(add(devices, "video"), "model", type=video.model or "vga",
                    vram=video.memory // KIB if video.memory else None, heads=video.heads)
        if video.accelerated is not None:
            add(model, "acceleration", accel3d=yes_no(video.accelerated))
    for one in machine.graphics:
        _graphics(devices, one)
    if any(one.kind == "spice" for one in machine.graphics):
        add(add(devices, "channel", type="spicevmc"), "target", type="virtio", name=SPICE)


def _graphics(devices: etree._Element, one: Graphics) -> None:
    remote = one.kind in ("vnc", "spice", "rdp")
    element = add(devices, "graphics", type=one.kind, port=(one.port if one.port is not None else -1) if remote else None,
                  autoport=yes_no(one.port is None) if remote else None, keymap=one.keymap)
    if one.listen:
        element.set("listen", one.listen)
        add(element, "listen", type="address", address=one.listen)


def others(devices: etree._Element, machine: Machine) -> None:
    """Everything that is one line each."""
    for kind in machine.inputs:
        add(devices, "input", type=kind, bus="usb")
    for model in machine.sounds:
        hda = "ich9" if machine.chipset == "q35" else "ich6"
        add(devices, "sound", model=hda if model == "hda" else back(SOUNDS, model))
    for folder in machine.shared_folders:
        element = add(devices, "filesystem", type="mount", accessmode="passthrough")
        add(element, "source", dir=folder.path)
        add(element, "target", dir=folder.tag)
        if folder.read_only:
            add(element, "readonly")
    if machine.tpm:
        tpm = add(devices, "tpm", model=machine.tpm.model)
        add(tpm, "backend", type="emulator", version=machine.tpm.version)
    if machine.watchdog:
        add(devices, "watchdog", model=machine.watchdog.model, action=machine.watchdog.action)
    if machine.rng:
        rng, builtin = add(devices, "rng", model="virtio"), machine.rng == "builtin"
        add(rng, "backend", None if builtin else machine.rng, model="builtin" if builtin else "random")
    if machine.balloon:
        add(devices, "memballoon", model=machine.balloon)
    if machine.tools.agent:
        add(add(devices, "channel", type="unix"), "target", type="virtio", name=AGENT)


def passthrough(devices: etree._Element, machine: Machine) -> Iterator[Problem]:
    """A problem for each device whose address libvirt does not take."""
    for number, one in enumerate(machine.passthrough):
        if not _hostdev(devices, one):
            yield Problem(what=f"passthrough[{number}] = {one.kind} {one.address}: not written",
                          hint="plug it in at the target: `virsh attach-device`")


def _hostdev(devices: etree._Element, one: Passthrough) -> bool:
    patterns = {"pci": PCI, "usb": USB, "scsi": SCSI, "mdev": UUID}
    match = patterns[one.kind].fullmatch(one.address or "") if one.kind in patterns else None
    if match is None:
        return False
    element = add(devices, "hostdev", mode="subsystem", type=one.kind, managed=None if one.kind in ("mdev", "scsi") else "yes",
                  model="vfio-pci" if one.kind == "mdev" else None)
    source = add(element, "source")
    if one.kind == "pci":
        domain, bus, slot, function = (f"0x{part}" for part in match.groups())
        add(source, "address", domain=domain, bus=bus, slot=slot, function=function)
    elif one.kind == "usb":
        add(source, "vendor", id=f"0x{match[1]}")
        add(source, "product", id=f"0x{match[2]}")
    elif one.kind == "mdev":
        add(source, "address", uuid=one.address)
    else:
        add(source, "adapter", name=match[1])
        add(source, "address", bus=match[2], target=match[3], unit=match[4])
    return True

