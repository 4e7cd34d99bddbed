"""Whether KVM can run a guest on this host. A device node is no proof: without the CPU's own virtualisation guests hang in it."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
"""Another one after each start of this host."""
HANGS = "the appliance did not start with KVM on this host: TCG is used until it is rebooted"


def kvm_state() -> tuple[bool, str]:
    """Usable or not, and why. Looks only; starts nothing."""
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return False, "no /dev/kvm that we may open: guests run under emulation (TCG), slowly"
    modules = [name for name in ("kvm_intel", "kvm_amd") if os.path.isdir(f"/sys/module/{name}")]
    if os.uname().machine == "x86_64" and not modules:
        return False, "/dev/kvm is there, but neither kvm_intel nor kvm_amd: guests would hang; TCG is used"
    with suppress(OSError):
        if _memory().read_bytes() == BOOT_ID.read_bytes():
            return False, HANGS
    return True, "/dev/kvm with " + (", ".join(modules) or os.uname().machine)


def remember_hang() -> None:
    """A guest did not start with KVM within its time: ``kvm_state`` says so until this host is booted again."""
    with suppress(OSError):
        _memory().parent.mkdir(parents=True, exist_ok=True)
        _memory().write_bytes(BOOT_ID.read_bytes())


def _memory() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "imgtool" / "kvm-hangs"
