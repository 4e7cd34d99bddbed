"""doctor: what this host has of what imgtool calls, and whether its KVM can be used."""

from __future__ import annotations

import os
import platform
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from imgtool import proc
from imgtool.errors import ENGINE_HINT, ImgtoolError, MissingToolError
from imgtool.formats.foreign import load_nbd
from imgtool.kvm import kvm_state
from imgtool.progress import Stop

LIMITS = proc.Limits(seconds=10, memory=4 << 30)
APT = "apt-get install "
NOT_STARTED = (126, 127)
"""Exit codes of what starts it: no program, or one that lacks a library."""


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
            state = tool.version or "found" if tool.found else "MISSING" if tool.needed else "missing"
            yield f"{tool.name:<19} {state:<10} {tool.purpose}"
        yield f"{'kvm':<19} {'usable' if self.kvm else 'not usable':<10} {self.kvm_why}"
        missing = [tool.install for tool in self.tools if not tool.found]
        packages = dict.fromkeys(command.removeprefix(APT) for command in missing if command.startswith(APT))
        if packages:
            yield f"to install: {APT}{' '.join(packages)}"
        for command in missing:
            if not command.startswith(APT):
                yield f"to install: {command}"


PROGRAMS = (
    ("qemu-img", "qemu-utils", "VHDX, VHD and VDI; compressed images; checks", True),
    ("qemu-nbd", "qemu-utils", "reading VHDX, VHD and VDI", True),
    ("prlimit", "util-linux", "limits for tools that parse foreign images", True),
    ("setpriv", "util-linux", "tools that end when imgtool ends", True),
    ("env", "coreutils", "tools that end when imgtool ends", True),
    ("ssh", "openssh-client", "machines that are elsewhere: qemu+ssh://, metal+ssh://", False),
    ("qemu-system-x86_64", "qemu-system-x86", "booting a converted disk, to try it", False),
    ("efibootmgr", "efibootmgr", "v2p --boot-entry", False),
    ("smartctl", "smartmontools", "the health of physical disks: info, p2v, v2p", False),
)
MODULES = (
    ("python3-libvirt", "libvirt", "machines of libvirt: qemu:///system, qemu+ssh://", f"{APT}python3-libvirt"),
    ("python3-guestfs", "guestfs", "inspect, adapt, --only-used", f"{APT}python3-guestfs"),
    ("imgtool[batch]", "dbos", "run, worker", ENGINE_HINT),
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
                      install=f"{APT}python3-libnbd"))
    tools += [Tool(name=name, found=find_spec(module) is not None, version=None, purpose=purpose, needed=False, install=install)
              for name, module, purpose, install in MODULES]
    tools.append(_kernel())
    usable, why = kvm_state()
    return Doctor(tools=tuple(tools), kvm=usable, kvm_why=why)


def _program(name: str, package: str, purpose: str, needed: bool, *, stop: Stop) -> Tool:
    version = None
    found = shutil.which(name) is not None
    if found:
        try:
            done = proc.run([name, "--version"], stop=stop, limits=LIMITS)
            found = done.returncode not in NOT_STARTED
            match = re.search(r"\d+\.\d+(?:\.\d+)?", done.stdout)
            version = match[0] if match else None
        except (ImgtoolError, OSError):
            stop.check()
            found = False
    return Tool(name=name, found=found, version=version, purpose=purpose, needed=needed, install=f"{APT}{package}")


def _kernel(boot: Path = Path("/boot"), modules: Path = Path("/lib/modules")) -> Tool:
    """What libguestfs' appliance boots: of this host, with its modules (supermin(1)), or one that was made before."""
    ready = bool(os.environ.get("LIBGUESTFS_PATH") or os.environ.get("SUPERMIN_KERNEL"))
    names = [path.name.removeprefix("vmlinuz-") for path in boot.glob("vmlinuz-*")]
    found = [name for name in names if (modules / name).is_dir()]
    architecture = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    return Tool(name="a kernel in /boot", found=ready or bool(found), version=None, needed=False,
                purpose="inspect, adapt, --only-used", install=f"{APT}linux-image-{architecture}")
