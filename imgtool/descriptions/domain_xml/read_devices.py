"""Devices other than disks and network cards: ports, screens, sound, what is passed through."""

from __future__ import annotations

from imgtool.descriptions.domain_xml.document import Node, integer
from imgtool.descriptions.domain_xml.words import AGENT, BALLOONS, SOUNDS, SPICE
from imgtool.errors import DamagedError
from imgtool.model.devices import Graphics, Passthrough, Port, SharedFolder, Video, Watchdog

MAX_PORT = 65535
KIB = 1024
INPUTS = ("tablet", "mouse", "keyboard")
PORTS = {"dev": "device"}
"""Other kinds have the same name here and there."""
PCI = ("domain", "bus", "slot", "function")


def ports(devices: Node, tag: str, field: str) -> tuple[Port, ...]:
    """``serial`` or ``parallel``. A ``console`` is the first serial port once more; or all that tells of it."""
    found = devices.children(tag)
    if tag == "serial":
        consoles = [one for one in devices.peek("console") if _is_serial(one)]
        found = found or consoles
        for console in consoles:
            console.skip()
    return tuple(_port(node.of(f"{field}[{number}]"), number) for number, node in enumerate(found))


def _is_serial(console: Node) -> bool:
    target = console.element.find("target")
    return target is None or target.get("type", "serial") in ("serial", "xen")


def _port(node: Node, number: int) -> Port:
    kind = PORTS.get(node.get("@type", "kind") or "pty", node.get("@type") or "pty")
    server = None
    sources = sorted(node.children("source"), key=lambda one: one.element.get("mode") == "bind")  # of UDP's two, where it is sent
    source = sources[0] if sources else None
    path = None
    if source and kind != "pty":
        path = source.get("@path", "path")
        if host := source.get("@host", "path"):
            path = f"{host}:{source.get('@service', 'path') or ''}"
        mode = source.get("@mode", "server")
        server = None if mode is None else mode == "bind"
    elif source:
        source.skip()
    protocol = node.get("protocol/@type")
    if kind == "tcp" and protocol and protocol != "raw":
        kind = {"telnet": "telnet", "tls": "tls", "telnets": "tls"}.get(protocol, kind)
    place = node.number("target/@port", "number", high=MAX_PORT)
    return Port(number=number if place is None else place, kind=kind, path=path, server=server)


def videos(devices: Node) -> tuple[Video, ...]:
    """Graphics cards."""
    found = []
    for number, node in enumerate(devices.children("video")):
        here = node.of(f"videos[{number}]")
        memory = here.number("model/@vram", "memory")
        found.append(Video(model=here.get("model/@type", "model"), memory=memory * KIB if memory else None,
                           heads=here.number("model/@heads", "heads"),
                           accelerated=here.yes("model/acceleration/@accel3d", "accelerated")))
    return tuple(found)


def graphics(devices: Node) -> tuple[Graphics, ...]:
    """Screens for people. A password is noted, and left behind."""
    return tuple(_graphics(node.of(f"graphics[{number}]")) for number, node in enumerate(devices.children("graphics")))


def _graphics(node: Node) -> Graphics:
    port = node.number("@port", low=-1, high=MAX_PORT)
    auto = node.yes("@autoport") or port in (None, -1, 0)
    password = node.element.get("passwd") is not None
    if password:
        node.notes.read.add((node.element, "@passwd"))
        node.problem("the password is not carried over", "set one at the target: `virsh edit`")
        node.said("password", f"{node.path}/@passwd", "***")
    listens = node.children("listen")
    listen = node.get("@listen", "listen")
    for one in listens:
        kind = one.get("@type")
        listen = one.get("@address", "listen") or listen
        if kind in ("socket", "none") or (kind == "network" and listen is None):
            one.problem(f"a screen that listens on a {kind}: not carried over", "VNC or SPICE on an address are")
            one.skip()
    if not auto:
        node.said("port", f"{node.path}/@port", str(port))
    return Graphics(kind=node.get("@type", "kind") or "vnc", listen=listen, port=None if auto else port,
                    keymap=node.get("@keymap", "keymap"), password=password)


def sounds(devices: Node) -> tuple[str, ...]:
    """``pcspk`` is in every PC."""
    found: list[str] = []
    for node in devices.children("sound"):
        if node.get("@model") != "pcspk":
            model = node.get("@model", f"sounds[{len(found)}]") or ""
            found.append(SOUNDS.get(model, model))
    return tuple(found)


def inputs(devices: Node) -> tuple[str, ...]:
    """Those on USB and virtio; PS/2 (and Xen's) are in every machine."""
    found: list[str] = []
    for node in devices.children("input"):
        kind, bus = node.get("@type") or "", node.get("@bus")
        if kind not in INPUTS:
            node.problem(f"an input device of type {kind}: not carried over", "plug the host's device in at the target")
            node.skip()
        elif bus not in ("ps2", "xen", None) or (bus is None and kind == "tablet"):
            node.get("@type", f"inputs[{len(found)}]")
            found.append(kind)
    return tuple(found)


def passthrough(devices: Node) -> tuple[Passthrough, ...]:
    """Devices of the host. Where an address is given in a form that we do not know, it is left out and said."""
    found: list[Passthrough] = []
    for node in devices.children("hostdev"):
        kind = node.get("@type") or node.get("@mode") or ""
        here = node.of(f"passthrough[{len(found)}]")
        source = here.child("source")
        address = _host_address(source, kind) if source else None
        if source:
            source.skip()
        if address is None:
            node.problem(f"a device of the host ({kind}) whose address cannot be carried over", "plug it in at the target")
            node.skip()
            continue
        here.said("address", f"{source.path if source else node.path}", address)
        node.get("@model")
        found.append(Passthrough(kind=kind, address=address))
    return tuple(found)


def _host_address(source: Node, kind: str) -> str | None:
    address = source.child("address")
    if kind == "pci" and address:
        domain, bus, slot, function = (_hexadecimal(address, part) for part in PCI)
        return f"{domain:04x}:{bus:02x}:{slot:02x}.{function:x}"
    vendor, product = source.get("vendor/@id"), source.get("product/@id")
    if kind == "usb" and vendor and product:
        return f"{vendor.removeprefix('0x')}:{product.removeprefix('0x')}"
    if kind == "mdev" and address:
        return address.get("@uuid")
    adapter = source.get("adapter/@name")
    if kind == "scsi" and adapter and address:
        return f"{adapter}:" + ":".join(str(address.number(f"@{part}", high=MAX_PORT) or 0) for part in ("bus", "target", "unit"))
    return None


def _hexadecimal(node: Node, part: str) -> int:
    value = node.get(f"@{part}") or "0"
    try:
        return integer(str(int(value, 0)), f"{node.path}/@{part}", high=MAX_PORT)
    except ValueError as error:
        raise DamagedError(f"{node.path}/@{part} = {value[:20]!r} is no number") from error


def shared_folders(devices: Node) -> tuple[SharedFolder, ...]:
    """Folders of the host (9p, virtiofs)."""
    found: list[SharedFolder] = []
    for node in devices.children("filesystem"):
        here = node.of(f"shared_folders[{len(found)}]")
        path, tag = node.get("source/@dir"), node.get("target/@dir")
        if (node.get("@type") or "mount") != "mount" or not path or not tag:
            node.problem("a file system of the host: not carried over", "share a folder at the target")
            node.skip()
            continue
        here.get("source/@dir", "path")
        here.get("target/@dir", "tag")
        found.append(SharedFolder(path=path, tag=tag, read_only=here.has("readonly", "read_only")))
    return tuple(found)


def watchdog(devices: Node) -> Watchdog | None:
    """The first."""
    node = devices.child("watchdog", "watchdog")
    if node is None:
        return None
    return Watchdog(model=node.get("@model", "model") or "i6300esb", action=node.get("@action", "action") or "reset")


def rng(devices: Node) -> str | None:
    """The host's file; ``builtin`` for QEMU's own source."""
    node = devices.child("rng", "rng")
    if node is None:
        return None
    model = node.get("backend/@model")
    if model == "egd":
        node.problem("random numbers from a daemon of the host: not carried over", "/dev/urandom is as good")
        node.skip()
        return None
    return "builtin" if model == "builtin" else node.get("backend", "") or "/dev/random"


def balloon(devices: Node) -> str | None:
    """Its model."""
    model = devices.get("memballoon/@model", "balloon")
    return BALLOONS.get(model, model) if model else None


def agent(devices: Node) -> bool | None:
    """Whether there is a channel for QEMU's guest agent. SPICE's own is written wherever there is SPICE."""
    found = None
    for node in devices.peek("channel"):
        target = node.element.find("target")
        name = None if target is None else target.get("name")
        if name == AGENT:
            found = True
            node.of("tools").said("agent", f"{node.path}/target/@name", AGENT)
        if name in (AGENT, SPICE):
            node.skip()
    return found
