"""What can be seen of a machine that was started, from the surest sign to the weakest: its agent, its console, its screen."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from imgtool.progress import Control

if TYPE_CHECKING:
    import libvirt

AGENT = "devices/channel/target[@name='org.qemu.guest_agent.0']"
AGENT_SECONDS, CONSOLE_SECONDS, SCREEN_SECONDS = 180.0, 90.0, 20.0
POLL = 1.0
PING = '{"execute":"guest-ping"}'
ESCAPES = re.compile(rb"\x1b\[[0-9;?]*[A-Za-z]|\x1b[()][A-Z0-9]|\x1b[A-Z78=>]|[\x00-\x08\x0b-\x1f\x7f]")
TAIL = 64 << 10
SHOWN = 120
LOGIN = re.compile(r"\blogin: ?$")
"""A getty: the system is up, nothing more will come by itself."""
SCREEN = 16 << 20


def look(connection: libvirt.virConnect, domain: libvirt.virDomain, control: Control, *, near: bool) -> str:
    """In words for a person. ``near``: files that the domain names are files of this machine.

    Raises libvirtError, StoppedError.
    """
    from lxml import etree

    if not domain.isActive():
        return "it is off again"
    root = etree.fromstring(domain.XMLDesc(0))
    signs = []
    if root.find(AGENT) is not None:
        if _answers(domain, control):
            return "the guest agent answers"
        signs.append("the guest agent does not answer")
    if words := _console(connection, domain, root, control, near=near):
        signs.append(f"its serial console says: {words}")
    elif domain.isActive():
        signs.append(_screen(connection, domain, control))
    if not domain.isActive():
        signs.append("it went off")
    return "; ".join(signs)


def _waiting(seconds: float, control: Control) -> Iterator[None]:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        control.stop.check()
        yield
        time.sleep(POLL)


def _answers(domain: Any, control: Control) -> bool:
    import libvirt
    import libvirt_qemu

    for _ in _waiting(AGENT_SECONDS, control):
        if not domain.isActive():
            return False
        with suppress(libvirt.libvirtError):
            libvirt_qemu.qemuAgentCommand(domain, PING, 5, 0)
            return True
    return False


def _console(connection: Any, domain: Any, root: Any, control: Control, *, near: bool) -> str:
    """The last line on the first serial port; "" where there is none, or nothing comes."""
    serial = root.find("devices/serial")
    if serial is None:
        return ""
    log = root.find("devices/serial/log")
    source = serial.find("source")
    path = log.get("file") if log is not None else source.get("path") if source is not None else None
    if near and (log is not None or serial.get("type") == "file") and path and os.path.isfile(path):
        return _last(_file(path, domain, control))
    return _last(_stream(connection, domain, control)) if serial.get("type") == "pty" else ""


def _file(path: str, domain: Any, control: Control) -> bytes:
    said = b""
    for _ in _waiting(CONSOLE_SECONDS, control):
        with open(path, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL))
            said = file.read(TAIL)
        if LOGIN.search(_last(said)) or not domain.isActive():
            break
    return said


def _stream(connection: Any, domain: Any, control: Control) -> bytes:
    """What comes on the console from now on."""
    import libvirt

    said = b""
    stream = connection.newStream(libvirt.VIR_STREAM_NONBLOCK)
    try:
        domain.openConsole(None, stream, 0)
        for _ in _waiting(CONSOLE_SECONDS, control):
            while (piece := stream.recv(4096)) not in (-2, b""):
                said = (said + piece)[-TAIL:]
            if LOGIN.search(_last(said)) or not domain.isActive():
                break
    except libvirt.libvirtError:  # somebody else has the console
        pass
    finally:
        with suppress(libvirt.libvirtError):
            stream.abort()
    return said


def _last(said: bytes) -> str:
    """The last line that says something, made harmless."""
    lines = [line.strip() for line in ESCAPES.sub(b"", said).decode(errors="replace").splitlines()]
    shown = [line for line in lines if line]
    return "".join(char for char in shown[-1] if char.isprintable())[:SHOWN] if shown else ""


def _screen(connection: Any, domain: Any, control: Control) -> str:
    """Two pictures, some time apart."""
    first = _picture(connection, domain)
    if first is None:
        return "it runs; it has no screen that could be looked at"
    for _ in _waiting(SCREEN_SECONDS, control):
        if not domain.isActive():
            return "its screen went dark"
        if _picture(connection, domain) != first:
            return "its screen changes"
    return "its screen does not change: look whether it hangs in the firmware"


def _picture(connection: Any, domain: Any) -> bytes | None:
    import libvirt

    stream = connection.newStream(0)
    sum_, count = blake2b(digest_size=16), 0
    try:
        domain.screenshot(stream, 0, 0)
        while (piece := stream.recv(1 << 16)) and count < SCREEN:
            sum_.update(piece)
            count += len(piece)
        stream.finish()
    except libvirt.libvirtError:
        with suppress(libvirt.libvirtError):
            stream.abort()
        return None
    return sum_.digest()
