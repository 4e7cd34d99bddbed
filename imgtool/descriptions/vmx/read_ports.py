"""Serial and parallel ports, screen, console, sound, USB, passthrough and shared folders of a ``.vmx``."""

from __future__ import annotations

import re

from imgtool.descriptions.vmx.keys import GRAPHICS, INPUTS, SOUNDS, USB, VIDEO
from imgtool.descriptions.vmx.read_disks import FOUND
from imgtool.descriptions.vmx.settings import Settings, shown
from imgtool.descriptions.vmx.values import BOOL, SAID
from imgtool.model.devices import Graphics, Passthrough, Port, SharedFolder, Video

SCHEMES = {"tcp": "tcp", "tcp4": "tcp", "tcp6": "tcp", "telnet": "telnet", "telnets": "tls", "ssl": "tls",
           "tcp+ssl": "tls", "tls": "tls"}
ADDRESS = re.compile(r"(?:([0-9a-f]{1,5}):)?([0-9a-f]{1,3}):([0-9a-f]{1,2})\.([0-7])", re.IGNORECASE)
"""Domain, bus, device and function of a PCI card."""
USB_ID = re.compile(r"(?:vid:)?(?:0x)?([0-9a-f]{1,4})(?::| pid:)(?:0x)?([0-9a-f]{1,4})\b", re.IGNORECASE)
VNC = "RemoteDisplay.vnc"


def read_serials(settings: Settings) -> list[Port]:
    """Serial ports, ThinPrint's and vSPC's among them."""
    found: list[Port] = []
    for match, head in settings.numbered(r"serial(\d{1,3})"):
        if settings.present(head):
            found.append(_serial(settings, head, int(match[1]), f"serials[{len(found)}]"))
    return found


def _serial(settings: Settings, head: str, number: int, where: str) -> Port:
    kind = (settings.get(f"{head}.fileType") or "device").lower()
    path = settings.take(f"{head}.fileName", f"{where}.path", SAID)
    server = None
    if kind == "network":
        kind, path, server = _network(settings, head, where, path)
    elif kind == "pipe":
        server = _server(settings, f"{head}.pipe.endPoint")
    elif kind == "device":
        path = _host_port(settings, head, path)
    elif kind not in {"file", "thinprint"}:
        settings.odd(f"{head}.fileType = {shown(kind)}: no kind of port that is known")
    connected = settings.take(f"{head}.startConnected", f"{where}.connected", BOOL)
    return Port(number=number, kind=kind, path=path, server=server, connected=connected)


def _network(settings: Settings, head: str, where: str, uri: str | None) -> tuple[str, str | None, bool | None]:
    """(kind, path, server) of a port that is reached over the network. With ``vspc`` it goes through a concentrator; so it does
    where ``fileName`` is no address."""
    server = _server(settings, f"{head}.network.endPoint")
    if proxy := settings.take(f"{head}.vspc", f"{where}.path", SAID):
        if uri:
            settings.odd(f"{head}.fileName = {shown(uri)}: the service behind the concentrator; not carried")
        return "proxy", proxy, server
    scheme, colon, place = (uri or "").partition("://")
    kind = SCHEMES.get(scheme.lower()) if colon else None
    if kind is None or uri is None:
        return "proxy", uri, server
    if scheme.lower() == "telnets":
        settings.odd(f"{head}.fileName: telnet inside TLS is taken as plain TLS")
    return kind, place or None, True if server is None else server


def _server(settings: Settings, key: str) -> bool | None:
    word = (settings.get(key) or "").lower()
    return word == "server" if word in {"server", "client"} else None


def _host_port(settings: Settings, head: str, path: str | None) -> str | None:
    return None if path is None or settings.flag(f"{head}.autodetect") or FOUND.fullmatch(path) else path


def read_parallels(settings: Settings) -> list[Port]:
    """Parallel ports: a device of the host, or a file."""
    found: list[Port] = []
    for match, head in settings.numbered(r"parallel(\d{1,3})"):
        if settings.present(head):
            where = f"parallels[{len(found)}]"
            settings.get(f"{head}.bidirectional")
            kind = (settings.get(f"{head}.fileType") or "device").lower()
            path = settings.take(f"{head}.fileName", f"{where}.path", SAID)
            connected = settings.take(f"{head}.startConnected", f"{where}.connected", BOOL)
            found.append(Port(number=int(match[1]), kind=kind, connected=connected,
                              path=_host_port(settings, head, path) if kind == "device" else path))
    return found


def read_videos(settings: Settings) -> list[Video]:
    """VMware's one display adapter, where anything is said of it."""
    there = settings.flag("svga.present")
    if there is False:
        return [Video(model="none")]
    fields = settings.all("svga", VIDEO, "videos[0]")
    if accelerated := settings.take("mks.enable3d", "videos[0].accelerated", BOOL):
        fields["accelerated"] = accelerated
    return [Video(model="vmvga", **fields)] if there or fields else []


def read_graphics(settings: Settings) -> list[Graphics]:
    """The console that VNC reaches. Its password is not read."""
    if not settings.flag(f"{VNC}.enabled"):
        return []
    secret = bool(settings.get(f"{VNC}.password")) | bool(settings.get(f"{VNC}.key"))
    if secret:
        settings.odd(f"{VNC}.password: passwords are never carried", hint="set a new one at the target")
    return [Graphics(kind="vnc", password=secret, **settings.all(VNC, GRAPHICS, "graphics[0]"))]


def read_sounds(settings: Settings) -> list[str]:
    """The sound card. VMware's own default is the ES1371."""
    if not settings.present("sound"):
        return []
    settings.used.update(f"sound.{key}" for key in ("filename", "startconnected", "autodetect", "allowguestconnectioncontrol"))
    return [settings.take("sound.virtualDev", "sounds", SOUNDS) or "es1371"]


def read_usb(settings: Settings) -> list[str]:
    """USB controllers, the slowest first."""
    return [model for head, model in USB.items() if settings.take(f"{head}.present", "usb", BOOL)]


def read_inputs(settings: Settings) -> list[str]:
    """What of mouse and keyboard is on USB."""
    return [name for name, key in INPUTS.items() if settings.take(key, "inputs", BOOL)]


def read_passthrough(settings: Settings, start: int) -> list[Passthrough]:
    """PCI cards, graphics cards' slices and USB devices; ``start``: how many others there are before them."""
    found: list[Passthrough] = []
    for _, head in settings.numbered(r"pcipassthru(\d{1,3})"):
        where = f"passthrough[{start + len(found)}].address"
        if not settings.present(head):
            continue
        if profile := settings.take(f"{head}.vgpu", where, SAID):
            found.append(Passthrough(kind="vgpu", name=profile))
        else:
            found.append(Passthrough(kind="pci", address=_pci(settings.take(f"{head}.id", where, SAID))))
    sticks = filter(None, (re.fullmatch(r"usb\.autoconnect\.device(\d{1,3})", key) for key in settings.heads.get("usb", ())))
    for match in sorted(sticks, key=lambda match: int(match[1])):
        if text := settings.take(match[0], f"passthrough[{start + len(found)}].address", SAID):
            numbers = USB_ID.match(text)
            address = f"{int(numbers[1], 16):04x}:{int(numbers[2], 16):04x}" if numbers else None
            found.append(Passthrough(kind="usb", address=address, name=None if numbers else text))
    return found


def _pci(text: str | None) -> str | None:
    """VMware's address of a PCI card as Linux writes it. ESXi counts in decimal (``00000:013:00.0``), people do not."""
    match = ADDRESS.fullmatch(text or "")
    if text is None or not match:
        return text
    domain, bus, device, function = match[1] or "0000", match[2], match[3], match[4]
    linux = [len(domain), len(bus), len(device)] == [4, 2, 2] or not (domain + bus + device).isdecimal()
    base = 16 if linux else 10
    return f"{int(domain, base):04x}:{int(bus, base):02x}:{int(device, base):02x}.{function}"


def read_folders(settings: Settings) -> list[SharedFolder]:
    """Folders of the host that the guest sees (Workstation, Fusion)."""
    found: list[SharedFolder] = []
    for _, head in settings.numbered(r"sharedfolder(\d{1,3})"):
        if not settings.present(head):
            continue
        settings.used.update(f"{head}.{key}" for key in ("expiration", "readaccess"))
        where = f"shared_folders[{len(found)}]"
        if settings.flag(f"{head}.enabled") is False:
            settings.used.update(settings.heads[head])
            settings.odd(f"{head} is disabled: left out")
            continue
        write = settings.take(f"{head}.writeAccess", f"{where}.read_only", BOOL)
        path = settings.take(f"{head}.hostPath", f"{where}.path", SAID)
        tag = settings.take(f"{head}.guestName", f"{where}.tag", SAID)
        found.append(SharedFolder(path=path or "", tag=tag or "", read_only=None if write is None else not write))
    return found
