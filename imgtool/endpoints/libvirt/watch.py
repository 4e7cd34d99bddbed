"""What can be seen of a machine that was started, from the surest sign to the weakest: its agent, its console, its screen."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from imgtool.progress import Control

if TYPE_CHECKING:
    import libvirt

AGENT = "devices/channel/target[@name='org.qemu.guest_agent.0']"
AGENT_SECONDS, CONSOLE_SECONDS, SCREEN_SECONDS = 180.0, 90.0, 20.0
LOGIN_SECONDS = 45.0
"""After a login prompt the agent is about to start, if there is one."""
POLL = 1.0
Listen = Callable[[], bytes]
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
    agent = root.find(AGENT) is not None
    with _console(connection, domain, root, near=near) as listen:
        answers, said = _listen(domain, listen, agent=agent, control=control)
    if answers:
        return "the guest agent answers"
    signs = ["the guest agent does not answer"] if agent else []
    if words := _last(said):
        signs.append(f"its serial console says: {words}")
    elif domain.isActive():
        signs.append(_screen(connection, domain, control))
    if not domain.isActive():
        signs.append("it went off")
    return "; ".join(signs)


def _listen(domain: Any, listen: Listen, *, agent: bool, control: Control) -> tuple[bool, bytes]:
    """Whether the agent answers, and what the console has said: until a login, the machine's end, or that of patience."""
    said, over = b"", time.monotonic() + (AGENT_SECONDS if agent else CONSOLE_SECONDS)
    while time.monotonic() < over:
        control.stop.check()
        said = listen()
        if agent and _answers(domain):
            return True, said
        if not domain.isActive():
            break
        if LOGIN.search(_last(said)):
            over = min(over, time.monotonic() + (LOGIN_SECONDS if agent else 0))
        time.sleep(POLL)
    return False, listen() or said


def _waiting(seconds: float, control: Control) -> Iterator[None]:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        control.stop.check()
        yield
        time.sleep(POLL)


def _answers(domain: Any) -> bool:
    import libvirt
    import libvirt_qemu

    with suppress(libvirt.libvirtError):
        libvirt_qemu.qemuAgentCommand(domain, PING, 5, 0)
        return True
    return False


@contextmanager
def _console(connection: Any, domain: Any, root: Any, *, near: bool) -> Iterator[Listen]:
    """Gives what the first serial port has said until now; nothing where there is none that can be listened to."""
    serial = root.find("devices/serial")
    log = root.find("devices/serial/log")
    source = serial.find("source") if serial is not None else None
    path = log.get("file") if log is not None else source.get("path") if source is not None else None
    if near and path and os.path.isfile(path) and (log is not None or serial.get("type") == "file"):
        yield lambda: _tail(path)
    elif serial is not None and serial.get("type") == "pty":
        with _stream(connection, domain) as listen:
            yield listen
    else:
        yield lambda: b""


def _tail(path: str) -> bytes:
    with open(path, "rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL))
        return file.read(TAIL)


@contextmanager
def _stream(connection: Any, domain: Any) -> Iterator[Listen]:
    """What comes on the console from now on."""
    import libvirt

    said = bytearray()
    stream = connection.newStream(libvirt.VIR_STREAM_NONBLOCK)

    def listen() -> bytes:
        with suppress(libvirt.libvirtError):  # the machine went off; or somebody else has the console
            while (piece := stream.recv(4096)) not in (-2, b""):
                said.extend(piece)
                del said[:-TAIL]
        return bytes(said)

    with suppress(libvirt.libvirtError):
        domain.openConsole(None, stream, 0)
    try:
        yield listen
    finally:
        with suppress(libvirt.libvirtError):
            stream.abort()


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
