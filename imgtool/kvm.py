"""Whether KVM can run a guest on this host. A device node is no proof: without the CPU's own virtualisation guests hang in it."""

from __future__ import annotations

import os


def kvm_state() -> tuple[bool, str]:
    """Usable or not, and why. Looks only; starts nothing."""
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return False, "no /dev/kvm that we may open: guests run under emulation (TCG), slowly"
    modules = [name for name in ("kvm_intel", "kvm_amd") if os.path.isdir(f"/sys/module/{name}")]
    if os.uname().machine == "x86_64" and not modules:
        return False, "/dev/kvm is there, but neither kvm_intel nor kvm_amd: guests would hang; TCG is used"
    return True, "/dev/kvm with " + (", ".join(modules) or os.uname().machine)
