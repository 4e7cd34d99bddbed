"""Agents and tools of hypervisors: which are installed, which must not start on the target, which should.

Nothing is fetched: what is not on the disk is not installed here. Programs of the distribution ask themselves where they run
(``ConditionVirtualization``) and stay; those of a vendor's installer do not.
"""

from __future__ import annotations

from collections.abc import Collection

from imgtool.guests.linux.edit import Editor, text
from imgtool.guests.linux.network import ini
from imgtool.guests.tree import Tree
from imgtool.model.guest import Platform

FOUND = (
    ("open-vm-tools", ("/usr/bin/vmtoolsd",)), ("VMware Tools", ("/etc/vmware-tools/locations",)),
    ("qemu-guest-agent", ("/usr/bin/qemu-ga", "/usr/sbin/qemu-ga")), ("spice-vdagent", ("/usr/bin/spice-vdagent",)),
    ("VirtualBox Guest Additions", ("/var/lib/VBoxGuestAdditions/config", "/usr/sbin/VBoxService", "/usr/bin/VBoxService")),
    ("Xen guest utilities", ("/usr/sbin/xe-daemon", "/usr/sbin/xe-linux-distribution")),
    ("Hyper-V daemons", ("/usr/sbin/hypervkvpd", "/usr/sbin/hv_kvp_daemon", "/usr/lib/hyperv/hv_kvp_daemon")),
    ("Parallels Tools", ("/usr/lib/parallels-tools/version",)),
)
FOREIGN = (
    ("VMware Tools", ("vmware-tools", "vmware-tools-thinprint"), (Platform.KVM, Platform.METAL)),
    ("VirtualBox Guest Additions", ("vboxadd", "vboxadd-service", "vboxadd-x11"), tuple(Platform)),
    ("Xen guest utilities", ("xe-daemon", "xe-linux-distribution"), tuple(Platform)),
    ("Parallels Tools", ("prltoolsd", "prltools"), tuple(Platform)),
)
"""Tools, their services, and the platforms where these must not start."""
WELCOME = {Platform.KVM: ("qemu-guest-agent", "qemu-guest-agent"), Platform.ESXI: ("open-vm-tools", "vmtoolsd")}
UNITS = ("/etc/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system")


def find(tree: Tree) -> tuple[str, ...]:
    """Names of what is installed."""
    return tuple(name for name, paths in FOUND if any(tree.is_file(path) for path in paths))


def adapt(editor: Editor, platform: Platform, coming: Collection[str] = ()) -> None:
    """Stops what belongs to another hypervisor, and enables what belongs to the target. ``coming``: packages at the next boot."""
    installed = find(editor.tree)
    for name, services, where in FOREIGN:
        if name in installed and platform in where:
            for service in services:
                _disable(editor, service, f"{name} cannot work on {platform}")
    if platform in WELCOME:
        package, service = WELCOME[platform]
        if package in installed:
            _enable(editor, service if _unit(editor.tree, service) else package, f"{package} serves {platform}")
        elif package not in coming:
            editor.warn(f"{package} is not installed in the guest: {platform} cannot ask it for addresses or a clean shutdown")


def _unit(tree: Tree, service: str) -> str | None:
    return next((path for folder in UNITS if tree.is_file(path := f"{folder}/{service}.service")), None)


def _disable(editor: Editor, service: str, why: str) -> None:
    """Masks the service, and takes it out of the old run levels."""
    tree = editor.tree
    links = [path for base in ("/etc", "/etc/rc.d") for path in tree.glob(f"{base}/rc[0-9S].d/S[0-9][0-9]{service}")]
    for path in dict.fromkeys(f"{tree.realpath(path.rsplit('/', 1)[0])}/{path.rsplit('/', 1)[1]}" for path in links):
        editor.remove(path, what=f"{service} does not start", why=why)
    if _unit(tree, service) or (tree.is_dir("/usr/lib/systemd/system") and tree.is_file(f"/etc/init.d/{service}")):
        editor.symlink("/dev/null", f"/etc/systemd/system/{service}.service", what=f"{service} is masked", why=why)


def _enable(editor: Editor, service: str, why: str) -> None:
    """As systemctl does: links in the folders that ``WantedBy`` names. A service that is masked stays so."""
    path = _unit(editor.tree, service)
    if path is None or editor.tree.readlink(f"/etc/systemd/system/{service}.service") == "/dev/null":
        return
    for wanted in ini.values(text(editor.tree, path), "Install", "WantedBy"):
        for target in wanted.split():
            if "/" not in target:
                link = f"/etc/systemd/system/{target}.wants/{service}.service"
                editor.symlink(path, link, what=f"{service} is enabled", why=why)
