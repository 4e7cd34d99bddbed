"""Packages that the user gives for a guest without a network: copied into it, installed by the guest itself when it next boots.

Nothing of them is run or unpacked here. All go to the guest's package manager in one call, so that they may need each other.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from fnmatch import fnmatch

from imgtool.errors import NoSpaceError, UsageError
from imgtool.guests.linux import distro, first_boot
from imgtool.guests.linux.edit import Editor
from imgtool.model.guest import OsInfo

FOLDER = "/var/lib/imgtool/packages"
MAX_PACKAGE, MAX_ALL = 128 << 20, 512 << 20
"""Bytes. open-vm-tools with all that it needs has 10 MiB."""
ROOM = 4
"""Times the packages' size: they are there packed and unpacked."""
ARCHITECTURES = {"x86_64": ("amd64", "x86_64"), "aarch64": ("arm64", "aarch64"), "i686": ("i386", "i486", "i586", "i686"),
                 "armv7l": ("armhf", "armv7hl", "armv7h", "armv7"), "ppc64": ("ppc64el", "ppc64le"), "s390x": ("s390x",),
                 "riscv64": ("riscv64",)}
WORD = re.compile(rf"[._-]({'|'.join(word for words in ARCHITECTURES.values() for word in words)})\.(?:deb|rpm|pkg\.tar\.\w+)$")
"""Of a file's name. Those without (``all``, ``noarch``, ``any``) fit everywhere; apk's names do not say it."""
RELEASE = re.compile(r"\.(?:el|amzn|ph)(\d+)(?:[._]|$)")
"""``.el9_4``: which release an rpm was made for."""


@dataclass(frozen=True, kw_only=True)
class Kind:
    """Packages of one family, and what installs all of them in the current folder."""

    pattern: str
    install: str


DEB = Kind(pattern="*.deb", install="DEBIAN_FRONTEND=noninteractive dpkg --force-confdef --force-confold --install ./*.deb")
RPM = Kind(pattern="*.rpm", install="rpm --upgrade --replacepkgs ./*.rpm")
KINDS = {
    "debian": DEB, "rhel": RPM, "suse": RPM,
    "alpine": Kind(pattern="*.apk", install="apk add --no-network --allow-untrusted ./*.apk"),
    "arch": Kind(pattern="*.pkg.tar.*", install="pacman --upgrade --noconfirm ./*.pkg.tar.*"),
}


def choose(folder: str, os_: OsInfo) -> tuple[str, ...]:
    """Paths of the packages for this guest: of its kind, its architecture, its release. Raises UsageError if there are none."""
    kind = KINDS.get(distro.family(os_))
    if kind is None:
        raise UsageError(f"imgtool does not know how {os_.name or os_.distro or 'this guest'} installs packages",
                         "leave --packages out")
    if not os.path.isdir(folder):
        raise UsageError(f"--packages {folder}: no such folder")
    found = [name for name in sorted(os.listdir(folder)) if fnmatch(name, kind.pattern) and not name.startswith((".", "-"))]
    fitting = [os.path.join(folder, name) for name in found if _fits(name, os_)]
    if not fitting:
        raise UsageError(f"{folder} has no packages for {os_.name or os_.distro} ({kind.pattern}, {os_.arch or 'any'})")
    sizes = [os.path.getsize(path) for path in fitting]
    if max(sizes) > MAX_PACKAGE or sum(sizes) > MAX_ALL:
        raise UsageError(f"the packages in {folder} are too large: at most {MAX_PACKAGE >> 20} MiB each, {MAX_ALL >> 20} in all")
    return tuple(fitting)


def _fits(name: str, os_: OsInfo) -> bool:
    word, release = WORD.search(name), RELEASE.search(name)
    known = ARCHITECTURES.get(os_.arch or "")
    if word and known and word[1] not in known:
        return False
    major = (os_.version or "").partition(".")[0]
    return not (release and major and distro.family(os_) == "rhel" and os_.distro != "fedora") or release[1] == major


def names(paths: tuple[str, ...]) -> tuple[str, ...]:
    """Of the packages, as far as their files' names say."""
    return tuple(re.split(r"[_-]\d", os.path.basename(path), maxsplit=1)[0] for path in paths)


def copy(editor: Editor, paths: tuple[str, ...], os_: OsInfo) -> None:
    """Copies the packages into the guest, which installs them at its next boot. Raises NoSpaceError."""
    tree, size = editor.tree, sum(os.path.getsize(path) for path in paths)
    if tree.free("/var") < ROOM * size:
        raise NoSpaceError(f"/var in the guest has {tree.free('/var') >> 20} MiB free; the packages need {ROOM * size >> 20}",
                           "make room in the guest, or leave --packages out")
    for path in paths:
        with open(path, "rb") as file:
            data = file.read(MAX_PACKAGE)
        target = f"{FOLDER}/{os.path.basename(path)}"
        if not tree.is_file(target) or tree.read(target, limit=MAX_PACKAGE) != data:
            tree.write(target, data)
            editor.note("package copied", target, "the guest installs it when it boots")
    first_boot.install(editor, KINDS[distro.family(os_)].install, FOLDER)
