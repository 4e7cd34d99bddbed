"""Guest systems in our own words, in VMware's, libosinfo's and the DMTF's. The rows are in ``guest_os_table``."""

from __future__ import annotations

import re
from functools import cache

from imgtool.descriptions.guest_os_table import ALIASES, CIM_READ, LINUX, LINUX_WORDS, RED_HAT, SYSTEMS, System
from imgtool.model.machine import GuestOs

VMWARE_WORD = re.compile(r"[a-z][a-z0-9_-]{0,63}", re.IGNORECASE)
LINUX_IDS = frozenset(one.id for one in (*RED_HAT, *LINUX))
X86_64, I686, AARCH64 = "x86_64", "i686", "aarch64"
OTHER_64 = "otherGuest64"
SCHEMES = ("http://", "https://")


def from_vmware(word: str) -> GuestOs:
    """A ``guestOS`` of a ``.vmx``, or an id of VMware's API, in any case. What has no row becomes ``linux``, or ``other`` with
    64 bit, on which a system of 32 bit runs too."""
    key = _vmx_word(word).lower()
    arm = key.startswith("arm-")
    key = key.removeprefix("arm-")
    base = key.removesuffix("-64")
    arch = AARCH64 if arm else X86_64 if key != base else I686
    if name := _by_word().get(key) or _by_word().get(base) or ALIASES.get(base):
        return GuestOs(id=name, arch=arch)
    if base in LINUX_WORDS:
        return GuestOs(id="linux", arch=arch, word=word)
    return GuestOs(arch=AARCH64 if arm else X86_64, word=word)


def to_vmware(os: GuestOs, hardware_version: int | None = None) -> str:
    """The ``guestOS`` of a ``.vmx`` that a host of this hardware version knows; None: the newest host."""
    if os.word and VMWARE_WORD.fullmatch(os.word):
        return _vmx_word(os.word)
    word = _vmx_word(to_vmware_api(os, hardware_version))
    return f"arm-{word}" if os.arch == AARCH64 else word


def to_vmware_api(os: GuestOs, hardware_version: int | None = None) -> str:
    """The id in VMware's API that a host of this hardware version knows; None: the newest host."""
    system = _system(os)
    while system.older and (system.api == (None, None) or (hardware_version is not None and system.since > hardware_version)):
        system = SYSTEMS[system.older]
    short, long = system.api
    return (short or long if os.arch == I686 else long or short) or OTHER_64


def from_osinfo(name: str) -> GuestOs:
    """libosinfo's address (``http://redhat.com/rhel/8.6``) or short id (``rhel8.6``, ``sles12sp5``). It names no architecture."""
    for path in (re.sub(r"^https?://", "", name),) if "/" in name else _long_ids(name):
        vendor, _, tail = path.rpartition("/")
        if rows := _by_vendor().get(vendor):
            major = re.match(r"\d*", tail)
            found = next((row for row in rows if path in (row.osinfo, row.unknown)), None) or next(
                (row for row in rows if "{" in str(row.osinfo) and _digits(row) in (major and major[0], "")), None)
            if found:
                known = "{" in str(found.osinfo) and not tail.endswith("unknown")
                return GuestOs(id=found.id, release=tail if known else None)
    return GuestOs(word=name if "/" in name else f"osinfo:{name}")


def to_osinfo(os: GuestOs) -> str | None:
    """libosinfo's address for a system; None where it has none."""
    if os.word:
        return os.word if os.word.startswith(SCHEMES) else None
    system = _system(os)
    if system.osinfo and os.release and re.fullmatch(r"[\w.-]+", os.release):
        return SCHEMES[0] + system.osinfo.format(release=os.release, major=os.release.partition(".")[0])
    path = system.unknown or system.osinfo
    return None if path is None or "{" in path else SCHEMES[0] + path


def from_cim(number: int) -> GuestOs:
    """``OsType`` of the DMTF, the ``id`` of an OVF's OperatingSystemSection. One number for two architectures means 64 bit."""
    if number in CIM_READ:
        return GuestOs(id=CIM_READ[number])
    found = _by_cim().get(number)
    return GuestOs(id=found[0], arch=found[1]) if found else GuestOs(word=str(number))


def to_cim(os: GuestOs) -> int:
    """The DMTF's number; for a Linux that has none 36 or 101, else 1 or 102."""
    if os.word and os.word.isdecimal():
        return int(os.word)
    pair = _system(os).cim or SYSTEMS["linux" if is_linux(os) else "other"].cim or (1, 1)
    return pair[0] if os.arch == I686 else pair[1]


def is_windows(os: GuestOs) -> bool:
    """Whether it is any Windows."""
    return os.id.startswith("windows")


def is_linux(os: GuestOs) -> bool:
    """Whether it is any Linux."""
    return os.id in LINUX_IDS


def safe_on_esxi(os: GuestOs) -> tuple[str, str]:
    """Models of a disk controller (or the buses ``ide``, ``nvme``) and of a network card for which each release has drivers."""
    return _system(os).safe


def _system(os: GuestOs) -> System:
    return SYSTEMS.get(os.id, SYSTEMS["other"])


def _vmx_word(api: str) -> str:
    """``rhel8_64Guest`` → ``rhel8-64``; a word of a ``.vmx`` stays as it is."""
    if "guest" not in api.lower():
        return api
    word = re.sub(r"_?64$", "-64", re.sub("guest", "", api, flags=re.IGNORECASE))
    for pattern, ours in (("server(-64)?$", r"srv\1"), ("^winlonghorn", "longhorn"), ("^vmwarephoton", "vmware-photon")):
        word = re.sub(pattern, ours, word, flags=re.IGNORECASE)
    return word if "Next" in word else word.lower()


def _long_ids(short: str) -> list[str]:
    """The addresses that a short id may stand for, the most precise first: ``sles12sp5`` → ``suse.com/sles/12.5``."""
    found = [(vendor, vendor.rpartition("/")[2]) for vendor in _by_vendor()]
    found.sort(key=lambda pair: -len(pair[1]))
    return [f"{vendor}/{re.sub(r'(?<=[0-9])sp(?=[0-9])', '.', short.removeprefix(word).lstrip('-')) or 'rolling'}"
            for vendor, word in found if short.startswith(word)]


def _digits(row: System) -> str:
    return re.sub(r"^\D*", "", row.id)


@cache
def _by_vendor() -> dict[str, list[System]]:
    """``redhat.com/rhel`` → its rows, those of one major release before the one for all others."""
    found: dict[str, list[System]] = {}
    for row in sorted(SYSTEMS.values(), key=lambda row: not _digits(row)):
        if row.osinfo:
            found.setdefault(row.osinfo.rpartition("/")[0], []).append(row)
    return found


@cache
def _by_word() -> dict[str, str]:
    found: dict[str, str] = {}
    for row in SYSTEMS.values():
        for api in filter(None, row.api):
            found.setdefault(_vmx_word(api).lower(), row.id)
    return found


@cache
def _by_cim() -> dict[int, tuple[str, str]]:
    found: dict[int, tuple[str, str]] = {}
    for row in SYSTEMS.values():
        short, long = row.cim or (None, None)
        for number, arch in ((long, X86_64 if row.api[1] or row.older else I686), (short, I686)):
            if number is not None:
                found.setdefault(number, (row.id, arch))
    return found
