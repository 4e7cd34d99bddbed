"""Tools of hypervisors, consoles, settings of initramfs tools, copies of changed files."""

from __future__ import annotations

from pathlib import Path

import pytest

from imgtool.guests.linux import adapt, commands, console, init, initramfs, rebuild, tools
from imgtool.guests.linux.distro import read_os
from imgtool.guests.linux.edit import Editor, kept_name
from imgtool.model.guest import AdaptRequest, Platform
from tests.folder_tree import FolderTree
from tests.phony import DISK, tree


@pytest.fixture
def editor(tmp_path: Path) -> Editor:
    return Editor(tree=FolderTree(tmp_path))


@pytest.mark.parametrize(("platform", "masked"), [(Platform.KVM, True), (Platform.METAL, True), (Platform.ESXI, False)])
def test_vmware_tools_start_on_esxi_only(editor: Editor, platform: Platform, masked: bool) -> None:
    editor.tree.write("/etc/vmware-tools/locations", b"")
    editor.tree.write("/usr/lib/systemd/system/x.service", b"")
    editor.tree.write("/etc/init.d/vmware-tools", b"")
    editor.tree.symlink("../init.d/vmware-tools", "/etc/rc3.d/S03vmware-tools")
    editor.tree.symlink("../init.d/other", "/etc/rc3.d/S03other")
    tools.adapt(editor, platform)
    assert (editor.tree.readlink("/etc/systemd/system/vmware-tools.service") == "/dev/null") is masked
    assert (editor.tree.readlink("/etc/rc3.d/S03vmware-tools") is None) is masked
    assert editor.tree.readlink("/etc/rc3.d/S03other")


def test_the_agent_is_enabled_as_its_unit_says(editor: Editor) -> None:
    editor.tree.write("/usr/bin/qemu-ga", b"")
    unit = "/usr/lib/systemd/system/qemu-guest-agent.service"
    editor.tree.write(unit, b"[Unit]\n[Install]\nWantedBy=dev-virtio.device ../x\n")
    tools.adapt(editor, Platform.KVM)
    assert editor.tree.readlink("/etc/systemd/system/dev-virtio.device.wants/qemu-guest-agent.service") == unit
    assert [change.where for change in editor.changes] == ["/etc/systemd/system/dev-virtio.device.wants/qemu-guest-agent.service"]
    assert not editor.warnings


@pytest.mark.parametrize(("tool", "program", "service", "unit", "masked"), [
    ("open-vm-tools", "/usr/bin/vmtoolsd", "vmtoolsd", "[Unit]\nConditionVirtualization=vmware\n", False),
    ("open-vm-tools", "/usr/bin/vmtoolsd", "open-vm-tools", "[Unit]\n", True),
    ("VirtualBox", "/usr/sbin/VBoxService", "vboxadd-service", "[Unit]\n", True),
    ("VirtualBox", "/usr/sbin/VBoxService", "virtualbox-guest-utils", "[Unit]\nConditionVirtualization=oracle\n", False),
    ("Xen", "/usr/sbin/xe-daemon", "xe-daemon", "[Unit]\n", True),
    ("Parallels", "/usr/lib/parallels-tools/version", "prltoolsd", "", True),
    ("Hyper-V", "/usr/sbin/hypervkvpd", "hypervkvpd", "[Unit]\nConditionVirtualization=microsoft\n", False),
    ("qemu-guest-agent", "/usr/bin/qemu-ga", "qemu-guest-agent", "[Unit]\nBindsTo=dev-virtio\\x2dports-x.device\n", False),
    ("qemu-guest-agent", "/usr/bin/qemu-ga", "qemu-ga", "[Unit]\n", True),
])
def test_what_does_not_ask_where_it_runs_is_masked(editor: Editor, tool: str, program: str, service: str, unit: str,
                                                   masked: bool) -> None:
    editor.tree.write(program, b"")
    editor.tree.write(f"/usr/lib/systemd/system/{service}.service", unit.encode())
    tools.adapt(editor, Platform.METAL)
    assert (editor.tree.readlink(f"/etc/systemd/system/{service}.service") == "/dev/null") is masked, tool


def test_a_linked_unit_is_masked_too(editor: Editor) -> None:
    own, there = "/etc/systemd/system/vboxadd-service.service", "/opt/vbox/vboxadd-service.service"
    editor.tree.write("/usr/sbin/VBoxService", b"")
    editor.tree.write(there, b"[Unit]\n")
    editor.tree.symlink(there, own)
    tools.adapt(editor, Platform.KVM)
    assert (editor.tree.readlink(own), editor.tree.readlink(kept_name(own))) == ("/dev/null", there)
    count = len(editor.changes)
    tools.adapt(editor, Platform.KVM)
    assert len(editor.changes) == count


def test_a_unit_of_the_vendors_installer_is_kept_aside_and_masked(editor: Editor) -> None:
    """VMware's own installer writes it where masks stand, and for upstart."""
    own = "/etc/systemd/system/vmware-tools.service"
    editor.tree.write("/etc/vmware-tools/locations", b"")
    editor.tree.write(own, b"[Service]\n")
    editor.tree.write("/etc/init/vmware-tools.conf", b"start on x\n")
    tools.adapt(editor, Platform.KVM)
    assert editor.tree.readlink(own) == "/dev/null"
    assert editor.tree.read(kept_name(own)) == b"[Service]\n"
    assert not editor.tree.exists("/etc/init/vmware-tools.conf")
    count = len(editor.changes)
    tools.adapt(editor, Platform.KVM)
    assert len(editor.changes) == count


@pytest.mark.parametrize(("platform", "program", "script"), [
    (Platform.KVM, "/usr/bin/qemu-ga", "qemu-ga"), (Platform.ESXI, "/usr/bin/vmtoolsd", "vmtoolsd")])
def test_scripts_of_run_levels_are_enabled_there_and_disabled_elsewhere(editor: Editor, platform: Platform, program: str,
                                                                        script: str) -> None:
    editor.tree.write(program, b"")
    editor.tree.write(f"/etc/init.d/{script}", b"")
    for level in "2345":
        editor.tree.mkdir(f"/etc/rc{level}.d")
    tools.adapt(editor, platform)
    links = [f"/etc/rc{level}.d/S20{script}" for level in "2345"]
    assert [editor.tree.readlink(link) for link in links] == [f"/etc/init.d/{script}"] * 4
    count = len(editor.changes)
    tools.adapt(editor, platform)
    assert len(editor.changes) == count
    tools.adapt(editor, Platform.METAL)
    assert [link for link in links if editor.tree.readlink(link)] == []


def test_openrc_runs_the_agent(editor: Editor) -> None:
    editor.tree.write("/usr/bin/qemu-ga", b"")
    editor.tree.write("/sbin/openrc-run", b"")
    editor.tree.write("/etc/init.d/qemu-guest-agent", b"")
    tools.adapt(editor, Platform.KVM)
    assert editor.tree.readlink("/etc/runlevels/default/qemu-guest-agent") == "/etc/init.d/qemu-guest-agent"
    tools.adapt(editor, Platform.ESXI)
    assert editor.tree.readlink("/etc/runlevels/default/qemu-guest-agent") is None


def test_a_masked_agent_stays_masked(editor: Editor) -> None:
    editor.tree.write("/usr/bin/qemu-ga", b"")
    editor.tree.write("/usr/lib/systemd/system/qemu-guest-agent.service", b"[Install]\nWantedBy=a.target\n")
    editor.tree.symlink("/dev/null", "/etc/systemd/system/qemu-guest-agent.service")
    tools.adapt(editor, Platform.KVM)
    assert editor.changes == []
    assert [one for one in editor.warnings if "systemctl unmask qemu-guest-agent" in one] == editor.warnings != []


def test_who_comes_back_is_told_what_an_earlier_move_has_masked(editor: Editor) -> None:
    editor.tree.write("/etc/vmware-tools/locations", b"")
    editor.tree.write("/etc/systemd/system/vmware-tools.service", b"[Service]\n")
    tools.adapt(editor, Platform.KVM)
    assert not any("unmask" in one for one in editor.warnings)
    tools.adapt(editor, Platform.ESXI)
    assert [one for one in editor.warnings if "systemctl unmask vmware-tools" in one]


def test_consoles(editor: Editor) -> None:
    files = {
        "/etc/inittab": ("# hvc0 stays\nco:2345:respawn:/sbin/agetty hvc0 9600 linux\n1:tty1\n",
                         "# hvc0 stays\nco:2345:respawn:/sbin/agetty ttyS0 9600 linux\n1:tty1\n"),
        "/etc/securetty": ("tty1\nxvc0\n", "tty1\nxvc0\nttyS0\n"),
        "/boot/grub/grub.cfg": ("\tlinux /a console=tty0 console=hvc0 myconsole=hvc0\n",
                                "\tlinux /a console=tty0 console=ttyS0 myconsole=hvc0\n"),
        "/etc/X11/xorg.conf": ('Section "Device"\n  Driver  "vmware"\nEndSection\n',
                               'Section "Device"\n  Driver  "modesetting"\nEndSection\n'),
    }
    for path, (old, _) in files.items():
        editor.tree.write(path, old.encode())
    for _ in range(2):
        console.adapt(editor)
        for path, (_, new) in files.items():
            assert editor.tree.read(path).decode() == new
    assert len(editor.changes) == len(files)


@pytest.mark.parametrize(("old", "new"), [
    ("MODULES=()\n", "MODULES=(a b)\n"), ("MODULES=(x a)\n", "MODULES=(x a b)\n"), ('MODULES="a-x b"\n', 'MODULES="a-x b a"\n'),
    ("#MODULES=(c)\n", '#MODULES=(c)\nMODULES="a b"\n'), ("MODULES=  # none\n", 'MODULES="a b"  # none\n'),
    ("x", 'x\nMODULES="a b"\n'),
    ("MODULES='b a' # c\n", "MODULES='b a' # c\n"),
])
def test_words_in_a_list(editor: Editor, old: str, new: str) -> None:
    editor.tree.write(rebuild.MKINITCPIO, old.encode())
    for _ in range(2):
        rebuild.keep(editor, "mkinitcpio", ("a", "b"), ())
        assert editor.tree.read(rebuild.MKINITCPIO).decode() == new


@pytest.mark.parametrize("name", ["debian12", "rhel9", "arch", "alpine319", "sles11"])
def test_what_is_to_be_rebuilt_is_not_extended(tmp_path: Path, name: str) -> None:
    """What is run in the guest stands in the golden files of test_linux_guests.py, as ``rebuilt by:``."""
    made = tree(name, tmp_path / "guest")
    before = {path.name: path.read_bytes() for path in (made.root / "boot").glob("initr*")}
    result = adapt(made, DISK, AdaptRequest(images=(), platform=Platform.KVM, rebuild_initramfs=True))
    with commands(made, Platform.KVM) as ran:
        assert len(ran) == 1
    assert {path.name: path.read_bytes() for path in (made.root / "boot").glob("initr*")} == before
    assert result.disk_bus == "virtio"


@pytest.mark.parametrize("setting", ["dep", "most"])
def test_what_initramfs_tools_takes_for_this_once(tmp_path: Path, setting: str) -> None:
    """A guest that had few drivers gets those and the new ones; one that had all has all."""
    made = tree("debian12", tmp_path / "guest")
    made.write("/etc/initramfs-tools/initramfs.conf", f"MODULES={setting}\n".encode())
    adapt(made, DISK, AdaptRequest(images=(), platform=Platform.KVM, rebuild_initramfs=True))
    listed = setting == "dep"
    with commands(made, Platform.KVM):
        assert (made.is_file(rebuild.HOOK), made.is_file(rebuild.ONCE)) == (listed, listed)
        if listed:
            assert made.stat(rebuild.HOOK).mode & 0o777 == 0o755
            taken = made.read(rebuild.HOOK).decode().splitlines()[-1].split()[1:]
            assert {"virtio_blk", "virtio_scsi", "vmw_pvscsi", "sd_mod"} <= set(taken)
            assert made.read(rebuild.ONCE).endswith(b"MODULES=list\n")
    assert not made.exists(rebuild.HOOK)
    assert not made.exists(rebuild.ONCE)
    assert made.is_file(rebuild.MOST) is listed


@pytest.mark.parametrize("path", ["/etc/fstab", "/etc/network/interfaces.d/eth0", "/etc/sysconfig/network-scripts/ifcfg-eth0",
                                  "/etc/runlevels/default/vmtoolsd"])
def test_the_first_version_is_kept_with_its_mode(editor: Editor, path: str) -> None:
    editor.tree.write(path, b"one", mode=0o600)
    for content in (b"two", b"two", b"three"):
        editor.write(path, content, what="x", why="y")
    assert editor.tree.read(kept_name(path)) == b"one"
    assert editor.tree.stat(kept_name(path)).mode & 0o777 == 0o600
    assert editor.tree.read(path) == b"three"
    assert len(editor.changes) == 2
    hidden = path != "/etc/fstab"
    assert editor.tree.glob(path.rsplit("/", 1)[0] + "/*") == ([path] if hidden else [path, kept_name(path)])


def test_a_tree_without_a_release_file(tmp_path: Path) -> None:
    """Modules of a kernel are enough for a Linux; folders that others have, too, are not."""
    made = FolderTree(tmp_path)
    assert read_os(made) is None
    made.write("/etc/passwd", b"")
    assert read_os(made) is None
    made.write("/usr/lib/modules/6.1/modules.dep", b"")
    found = read_os(made)
    assert found
    assert (found.family, found.distro, found.version, found.name) == ("linux", None, None, None)


@pytest.mark.parametrize("tool", ["initramfs-tools", "dracut", "mkinitcpio", "mkinitfs", "mkinitrd", None])
def test_where_no_driver_is_a_file_no_tool_is_told(editor: Editor, tool: str | None) -> None:
    rebuild.keep(editor, tool, [], [])
    assert editor.changes == []
    assert (rebuild.commands(tool, "6.1", "/boot/k", "/boot/i", ()) == ()) == (tool is None)


def test_under_systemd_no_script_is_linked(editor: Editor) -> None:
    for level in (3, 5):
        editor.tree.write(f"/etc/rc.d/rc{level}.d/S01x", b"")
    assert init.start_links(editor.tree, "vmtoolsd", 20) == ("/etc/rc.d/rc3.d/S20vmtoolsd", "/etc/rc.d/rc5.d/S20vmtoolsd")
    editor.tree.symlink("/usr/lib/systemd/systemd", "/sbin/init")
    assert init.start_links(editor.tree, "vmtoolsd", 20) == ()


def test_links_in_an_initramfs_that_go_up() -> None:
    assert initramfs._joined(["usr", "bin", "..", "lib", ".", "", "modules"]) == "usr/lib/modules"
    assert initramfs._joined(["..", "lib"]) == "lib"
