"""Agents and tools of hypervisors: which are installed, which must not start on the target, which should.

Nothing is fetched: what is not on the disk is not installed here. Programs of the distribution ask themselves where they run
(``ConditionVirtualization``) and stay; those of a vendor's installer do not.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from imgtool.guests.linux.edit import Editor, text
from imgtool.guests.linux.init import start_links
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
KVM_ONLY, ESXI_ONLY = (Platform.ESXI, Platform.METAL), (Platform.KVM, Platform.METAL)
FOREIGN = (
    ("VMware Tools", ("vmware-tools", "vmware-tools-thinprint"), ESXI_ONLY),
    ("open-vm-tools", ("vmtoolsd", "open-vm-tools"), ESXI_ONLY),
    ("qemu-guest-agent", ("qemu-ga", "qemu-guest-agent"), KVM_ONLY),
    ("VirtualBox Guest Additions", ("vboxadd", "vboxadd-service", "vboxadd-x11", "virtualbox-guest-utils"), tuple(Platform)),
    ("Xen guest utilities", ("xe-daemon", "xe-linux-distribution"), tuple(Platform)),
    ("Parallels Tools", ("prltoolsd", "prltools"), tuple(Platform)),
    ("Hyper-V daemons", ("hypervkvpd", "hypervvssd", "hypervfcopyd", "hv_kvp_daemon", "hv_vss_daemon", "hv_fcopy_daemon"),
     tuple(Platform)),
)
"""Tools, their services, and the platforms where these must not start."""
WELCOME = {Platform.KVM: ("qemu-guest-agent", ("qemu-guest-agent", "qemu-ga")),
           Platform.ESXI: ("open-vm-tools", ("vmtoolsd", "open-vm-tools"))}
ASKS = re.compile(r"^(?:ConditionVirtualization=|(?:BindsTo|Requires)=dev-virtio|ConditionPathExists=/dev/virtio)", re.MULTILINE)
"""A unit that starts nowhere but on its own hypervisor."""
UNITS = ("/etc/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system")


def find(tree: Tree) -> tuple[str, ...]:
    """Names of what is installed."""
    return tuple(name for name, paths in FOUND if any(tree.is_file(path) for path in paths))


def adapt(editor: Editor, platform: Platform, coming: Collection[str] = ()) -> None:
    """Stops what belongs to another hypervisor, and enables what belongs to the target. ``coming``: packages at the next boot."""
    installed = find(editor.tree)
    for name, services, where in FOREIGN:
        for service in services if name in installed else ():
            if platform in where:
                _disable(editor, service, f"{name} cannot work on {platform}")
            elif _is_masked(editor.tree, service):
                editor.warn(f"{service} of {name} is masked in the guest, by an earlier move or by somebody, and does not start: "
                            f"systemctl unmask {service}")
    if platform in WELCOME:
        package, services = WELCOME[platform]
        if package in installed:
            _enable(editor, services, f"{package} serves {platform}")
        elif package not in coming:
            editor.warn(f"{package} is not installed in the guest: {platform} cannot ask it for addresses or a clean shutdown")


def _unit(tree: Tree, service: str) -> str | None:
    return next((path for folder in UNITS if tree.is_file(path := f"{folder}/{service}.service")), None)


def _own(service: str) -> str:
    """Where a mask stands, and a unit of the administrator."""
    return f"/etc/systemd/system/{service}.service"


def _is_masked(tree: Tree, service: str) -> bool:
    return tree.readlink(_own(service)) == "/dev/null"


def _links(tree: Tree, service: str) -> list[str]:
    """What starts a script of ``/etc/init.d``: in run levels of System V, and of OpenRC."""
    found = [path for base in ("/etc", "/etc/rc.d") for path in tree.glob(f"{base}/rc[0-9S].d/S[0-9][0-9]{service}")]
    found += tree.glob(f"/etc/runlevels/*/{service}")
    return list(dict.fromkeys(f"{tree.realpath(path.rsplit('/', 1)[0])}/{path.rsplit('/', 1)[1]}" for path in found))


def _disable(editor: Editor, service: str, why: str) -> None:
    """Masks the service, and takes it out of the old run levels. What asks by itself where it runs stays."""
    tree, what = editor.tree, f"{service} does not start"
    for path in (*_links(tree, service), f"/etc/init/{service}.conf"):
        editor.remove(path, what=what, why=why)
    own = _own(service)
    unit = _unit(tree, service)
    if unit and ASKS.search(text(tree, unit)):
        return
    if unit == own:  # a file, or a link to one (systemctl link): else it would go before the mask
        editor.remove(own, what=what, why=why)
    if unit or (tree.is_dir("/usr/lib/systemd/system") and tree.is_file(f"/etc/init.d/{service}")):
        editor.symlink("/dev/null", own, what=f"{service} is masked", why=why)


def _enable(editor: Editor, services: Sequence[str], why: str) -> None:
    """As systemctl, chkconfig or rc-update do. A masked service stays so (who wanted that?), and one that starts."""
    tree = editor.tree
    service = next((one for one in services if _unit(tree, one)), None)
    path = _unit(tree, service or "")
    if path and not _is_masked(tree, service or ""):
        wanted = [word for line in ini.values(text(tree, path), "Install", "WantedBy") for word in line.split()]
        for target in filter(lambda word: "/" not in word, wanted):
            link = f"/etc/systemd/system/{target}.wants/{service}.service"
            editor.symlink(path, link, what=f"{service} is enabled", why=why)
    script = next((one for one in services if tree.is_file(f"/etc/init.d/{one}")), None)
    if service is None and script and not _links(tree, script):
        for link in start_links(tree, script, 20):
            editor.symlink(f"/etc/init.d/{script}", link, what=f"{script} is enabled", why=why)
