"""doctor: what this host has of what imgtool calls, and whether its KVM can be used."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec

from imgtool import proc
from imgtool.errors import ImgtoolError, MissingToolError
from imgtool.formats.foreign import load_nbd
from imgtool.kvm import kvm_state
from imgtool.progress import Stop

LIMITS = proc.Limits(seconds=10, memory=4 << 30)


@dataclass(frozen=True, kw_only=True)
class Tool:
    name: str
    found: bool
    version: str | None
    purpose: str
    needed: bool
    install: str


@dataclass(frozen=True, kw_only=True)
class Doctor:
    tools: tuple[Tool, ...]
    kvm: bool
    kvm_why: str

    def lines(self) -> Iterator[str]:
        for tool in self.tools:
            state = tool.version or "found" if tool.found else f"MISSING: {tool.install}"
            yield f"{tool.name:<20} {state:<28} {tool.purpose}"
        yield f"{'kvm':<20} {'usable' if self.kvm else 'not usable':<28} {self.kvm_why}"


PROGRAMS = (
    ("qemu-img", "qemu-utils", "VHDX, VHD and VDI; compressed images; checks", True),
    ("qemu-nbd", "qemu-utils", "reading VHDX, VHD and VDI", True),
    ("prlimit", "util-linux", "limits for tools that parse foreign images", True),
    ("setpriv", "util-linux", "children that die with imgtool", True),
    ("qemu-system-x86_64", "qemu-system-x86", "booting a converted disk, to try it", False),
)


def examine(stop: Stop) -> Doctor:
    """Starts each tool once, to see that it does start."""
    tools = [_program(*row, stop=stop) for row in PROGRAMS]
    try:
        version = str(load_nbd().NBD().get_version())
        found = True
    except MissingToolError:
        version, found = None, False
    tools.append(Tool(name="python3-libnbd", found=found, version=version, purpose="reading VHDX, VHD and VDI", needed=True,
                      install="apt-get install python3-libnbd"))
    tools.append(Tool(name="python3-guestfs", found=find_spec("guestfs") is not None, version=None,
                      purpose="inspect, adapt, --only-used", needed=False, install="apt-get install python3-guestfs"))
    usable, why = kvm_state()
    return Doctor(tools=tuple(tools), kvm=usable, kvm_why=why)


def _program(name: str, package: str, purpose: str, needed: bool, *, stop: Stop) -> Tool:
    version = None
    found = shutil.which(name) is not None
    if found:
        try:
            said = proc.run([name, "--version"], stop=stop, limits=LIMITS).stdout
            match = re.search(r"\d+\.\d+(?:\.\d+)?", said)
            version = match[0] if match else None
        except (ImgtoolError, OSError):
            stop.check()
            found = False
    return Tool(name=name, found=found, version=version, purpose=purpose, needed=needed, install=f"apt-get install {package}")
