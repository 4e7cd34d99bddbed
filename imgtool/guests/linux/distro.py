"""Which Linux this is: os-release(5), and the files of those that are older than it."""

from __future__ import annotations

import re
import shlex
from contextlib import suppress

from imgtool.errors import DamagedError
from imgtool.guests.linux.edit import text
from imgtool.guests.tree import Tree
from imgtool.model.guest import OsInfo

OS_RELEASE = ("/etc/os-release", "/usr/lib/os-release")
RELEASE_FILES = (
    ("/etc/oracle-release", "ol"), ("/etc/centos-release", "centos"), ("/etc/fedora-release", "fedora"),
    ("/etc/redhat-release", "rhel"), ("/etc/SuSE-release", "sles"), ("/etc/system-release", "amzn"),
    ("/etc/alpine-release", "alpine"), ("/etc/debian_version", "debian"), ("/etc/arch-release", "arch"),
)
"""Of systems without os-release; the more special first: CentOS has redhat-release too."""
ELF_MACHINES = {3: "i686", 20: "ppc", 21: "ppc64", 22: "s390x", 40: "armv7l", 62: "x86_64", 183: "aarch64", 243: "riscv64"}
"""``e_machine`` of the ELF header, at byte 18 (System V ABI)."""
PROGRAMS = ("/usr/bin/bash", "/bin/bash", "/usr/bin/ls", "/bin/ls", "/bin/busybox", "/usr/lib/systemd/systemd", "/sbin/init")
PROGRAM_LIMIT = 64 << 20
MAX_SETTINGS, MAX_LINE = 1 << 20, 8192
"""Characters of a shell file that are looked at, and of a line in it: shlex gets slower and slower."""
FAMILIES = {
    "debian": ("debian", "ubuntu", "linuxmint", "kali", "raspbian", "devuan", "pop"),
    "rhel": ("rhel", "centos", "fedora", "rocky", "almalinux", "ol", "scientific", "amzn", "photon",
             "openeuler", "anolis", "eurolinux"),
    "suse": ("sles", "sled", "sles_sap", "opensuse", "opensuse-leap", "opensuse-tumbleweed", "suse", "sle-micro"),
    "alpine": ("alpine",),
    "arch": ("arch", "manjaro", "endeavouros"),
}
"""Families that share their tools, by ``ID``."""


def read_os(tree: Tree) -> OsInfo | None:
    """The Linux in this tree; None if there is none."""
    fields = next((found for path in OS_RELEASE if (found := variables(text(tree, path))).get("ID")), {})
    distro, version, name = fields.get("ID"), fields.get("VERSION_ID"), fields.get("PRETTY_NAME")
    if distro is None:
        distro, version, name = _old_release(tree)
    if distro is None and not (tree.is_dir("/etc") and any(tree.is_dir(path) for path in ("/lib/modules", "/usr/lib/modules"))):
        return None
    if distro in ("debian", "centos") and (precise := _precise(tree, distro)):
        version = precise if version is None or precise.startswith(version) else version
    return OsInfo(family="linux", distro=distro, version=version or None, name=name, arch=_arch(tree), hostname=_hostname(tree))


def family(os: OsInfo) -> str:
    """debian, rhel, suse, alpine, arch, or "" for those that we do not know."""
    return next((name for name, ids in FAMILIES.items() if (os.distro or "") in ids), "")


def variables(content: str) -> dict[str, str]:
    """Assignments of a shell file, as os-release and ``/etc/default`` have them. Nothing is expanded; the last one counts."""
    found = {}
    for line in content[:MAX_SETTINGS].split("\n"):
        matched = re.match(r"\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)=(.*)", line) if len(line) <= MAX_LINE else None
        if matched:
            with suppress(ValueError):
                found[matched[1]] = "".join(shlex.split(matched[2], comments=True)[:1])
    return found


def _old_release(tree: Tree) -> tuple[str | None, str | None, str | None]:
    for path, distro in RELEASE_FILES:
        if tree.is_file(path):
            first = text(tree, path).strip().split("\n")[0]
            number = re.search(r"\d+(\.\d+)*", first)
            name = first if not first[:1].isdigit() else f"{distro} {first}"
            return distro, number[0] if number else None, name or None
    return None, None, None


def _precise(tree: Tree, distro: str) -> str | None:
    """The point release, which their os-release leaves out."""
    content = text(tree, {"debian": "/etc/debian_version", "centos": "/etc/centos-release"}[distro])
    number = re.search(r"\d+(\.\d+)?", content)
    return number[0] if number else None


def _hostname(tree: Tree) -> str | None:
    lines = [line.strip() for line in text(tree, "/etc/hostname").split("\n") + text(tree, "/etc/HOSTNAME").split("\n")]
    named = next((line for line in lines if line and not line.startswith("#")), None)
    return named or variables(text(tree, "/etc/sysconfig/network")).get("HOSTNAME") or None


def _arch(tree: Tree) -> str | None:
    for path in PROGRAMS:
        with suppress(OSError, DamagedError):
            head = tree.read(path, limit=PROGRAM_LIMIT)[:20]
            if head[:4] == b"\x7fELF":
                return ELF_MACHINES.get(int.from_bytes(head[18:20], "big" if head[5] == 2 else "little"))
    return None
