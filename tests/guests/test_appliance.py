"""The appliance, really started (once for this module): the tree of a guest, what storage can be made of, and how it ends.

An appliance start takes 8 to 25 s under TCG.
"""

from __future__ import annotations

import os
import re
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from imgtool.errors import DamagedError, ImgtoolError, LockedError, StoppedError
from imgtool.guests import checks, mounts, overlay, volumes
from imgtool.guests.appliance import Handle, appliance
from imgtool.guests.guest_tree import SMALL, GuestTree
from imgtool.guests.inside import Inside, _explained, find
from imgtool.guests.linux.edit import Editor
from imgtool.model import SourceOptions
from imgtool.model.guest import AdaptResult, OsInfo
from imgtool.progress import Stop
from imgtool.steps.adapt import _unlisted
from tests import oracle

MIB = 1 << 20
PASSPHRASE = "correct horse"
SELINUX = "security.selinux"


def small_root(place: Path) -> Path:
    """An ext4 disk with all that a hostile guest may have in its tree."""
    tree, disk = place / "tree", place / "root.raw"
    (tree / "etc").mkdir(parents=True)
    (tree / "etc/fstab").write_text("LABEL=little / ext4 defaults 0 1\n")
    (tree / "etc/hosts").write_text("127.0.0.1 localhost\n")
    (tree / "etc/out").symlink_to("../../../../../../etc/shadow")
    (tree / "etc/absolute").symlink_to("/etc/hosts")
    (tree / "etc/broken").symlink_to("/nowhere")
    (tree / "etc/circle").symlink_to("circle")
    os.mkfifo(tree / "etc/fifo")
    os.mknod(tree / "etc/zero", stat.S_IFCHR | 0o666, os.makedev(1, 5))
    (tree / "boot").mkdir()
    for name in (b"vmlinuz-1 and\na line", b"vmlinuz-\xff\xfe", b".hidden", b"vmlinuz-2", b"-rf"):
        (tree / "boot" / os.fsdecode(name)).write_bytes(b"kernel")
    with (tree / "etc/large").open("wb") as file:
        file.truncate(1 << 30)
    with disk.open("wb") as file:
        file.truncate(64 * MIB)
    oracle.tool("mke2fs", "-q", "-F", "-t", "ext4", "-L", "little", "-d", tree, disk)
    return disk


@pytest.fixture(scope="module")
def handle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Handle]:
    """Four disks: a small root, and three empty ones."""
    place = tmp_path_factory.mktemp("machine")
    paths = [small_root(place)]
    for name in "bcd":
        paths.append(place / f"{name}.raw")
        with paths[-1].open("wb") as file:
            file.truncate(256 * MIB)
    with ExitStack() as stack:
        reading = SourceOptions(format="raw")
        disks = stack.enter_context(overlay.opened([str(path) for path in paths], reading, writing=False, stop=Stop()))
        made = stack.enter_context(overlay.overlays(disks, str(place), stop=Stop()))
        yield stack.enter_context(appliance(made, stop=Stop()))


@pytest.fixture
def tree(handle: Handle) -> Iterator[GuestTree]:
    handle.call("mount_options", "", "/dev/sda", "/")
    with GuestTree(handle) as found:
        yield found
    handle.call("umount_all")


def test_reading(tree: GuestTree) -> None:
    assert tree.read("/etc/hosts") == b"127.0.0.1 localhost\n"
    assert tree.read("/etc/absolute") == b"127.0.0.1 localhost\n"
    assert [tree.is_dir("/etc"), tree.is_file("/etc/hosts")] == [True, True]
    assert [tree.is_file("/etc"), tree.exists("/none")] == [False, False]
    assert tree.stat("/etc/hosts").size == 20
    assert stat.S_IMODE(tree.stat("/etc/hosts").mode) == 0o644
    with pytest.raises(FileNotFoundError):
        tree.read("/etc/none")
    with pytest.raises(FileNotFoundError):
        tree.stat("/etc/none")
    assert 0 < tree.free("/etc") < 64 * MIB


def test_links_stay_inside(tree: GuestTree) -> None:
    """``/etc/out`` leads to a file of the guest that is not there, never to one of this host or of the appliance."""
    assert not tree.exists("/etc/out")
    with pytest.raises(FileNotFoundError):
        tree.read("/etc/out")
    assert tree.readlink("/etc/out") == "../../../../../../etc/shadow"
    assert tree.readlink("/etc/hosts") is None
    assert tree.realpath("/etc/absolute") == "/etc/hosts"
    assert tree.realpath("/none/at/all") == "/none/at/all"
    assert (tree.exists("/etc/broken"), tree.lexists("/etc/broken"), tree.exists("/etc/circle")) == (False, True, False)
    assert [tree.realpath(f"/etc/{name}") for name in ("out", "broken", "circle", "circle/x")] == [
        "/etc/shadow", "/nowhere", "/etc/circle", "/etc/circle/x"]


def test_writing_through_links_that_lead_to_nothing(tree: GuestTree) -> None:
    """What they name is made, as the guest would; a circle names nothing."""
    tree.symlink("../not/there/yet", "/etc/dangling")
    tree.symlink("/etc/dangling", "/etc/to-dangling")
    tree.write("/etc/to-dangling", b"made", mode=0o640)
    assert (tree.read("/not/there/yet"), stat.S_IMODE(tree.stat("/not/there/yet").mode)) == (b"made", 0o640)
    assert (tree.readlink("/etc/dangling"), tree.readlink("/etc/to-dangling")) == ("../not/there/yet", "/etc/dangling")
    with pytest.raises(DamagedError, match="/etc/circle: Too many levels of symbolic links"), _explained():
        tree.write("/etc/circle", b"x")


@pytest.mark.parametrize("name", ["fifo", "zero", "large"])
def test_what_is_no_file_to_read(tree: GuestTree, name: str, tmp_path: Path) -> None:
    with pytest.raises(DamagedError, match=f"/etc/{name}"):
        tree.read(f"/etc/{name}")
    if name != "large":
        with pytest.raises(DamagedError, match="no regular file"):
            tree.write(f"/etc/{name}", b"x")
        with pytest.raises(DamagedError, match="no regular file"):
            tree.download(f"/etc/{name}", str(tmp_path / "x"))


def test_names_of_strangers(tree: GuestTree) -> None:
    assert tree.ls("/boot") == sorted(["-rf", ".hidden", "vmlinuz-1 and\na line", "vmlinuz-2", "vmlinuz-\udcff\udcfe"])
    assert tree.glob("/boot/vmlinuz-*") == ["/boot/vmlinuz-1 and\na line", "/boot/vmlinuz-2", "/boot/vmlinuz-\udcff\udcfe"]
    assert tree.glob("/b*t/vmlinuz-[0-9]") == ["/boot/vmlinuz-2"]
    assert tree.glob("/etc/brok*") == tree.glob("/etc/broken") == ["/etc/broken"]
    assert tree.read("/boot/vmlinuz-1 and\na line") == b"kernel"
    assert not tree.exists("/boot/vmlinuz-\udcff\udcfe")
    assert tree.ls("/none") == []


def test_writing_keeps_what_a_file_has(tree: GuestTree, handle: Handle) -> None:
    tree.write("/etc/kept", b"old", mode=0o640)
    handle.call("chown", 7, 8, "/etc/kept")
    handle.call("setxattr", SELINUX, "system_u:object_r:kept_t:s0", 27, "/etc/kept")
    tree.write("/etc/kept", b"new", mode=0o777)
    found = tree.stat("/etc/kept")
    assert (stat.S_IMODE(found.mode), found.uid, found.gid, tree.read("/etc/kept")) == (0o640, 7, 8, b"new")
    assert handle.call("getxattr", "/etc/kept", SELINUX).rstrip(b"\0") == b"system_u:object_r:kept_t:s0"


def test_a_new_file_has_the_label_of_its_folder(tree: GuestTree, handle: Handle) -> None:
    tree.mkdir("/srv/new")
    handle.call("setxattr", SELINUX, "system_u:object_r:srv_t:s0", 26, "/srv/new")
    tree.write("/srv/new/file", b"x")
    tree.write("/srv/new/script", b"x", mode=0o755)
    assert handle.call("getxattr", "/srv/new/file", SELINUX).rstrip(b"\0") == b"system_u:object_r:srv_t:s0"
    assert [stat.S_IMODE(tree.stat(f"/srv/new/{name}").mode) for name in ("file", "script")] == [0o644, 0o755]
    tree.write("/srv/deeper/and/deeper", b"")
    assert tree.read("/srv/deeper/and/deeper") == b""
    tree.write("/srv/new/below/unit", b"")
    tree.symlink("/nowhere", "/srv/new/wants/link")
    for path in ("below", "below/unit", "wants", "wants/link"):
        assert handle.call("lgetxattr", f"/srv/new/{path}", SELINUX).rstrip(b"\0") == b"system_u:object_r:srv_t:s0"
    with pytest.raises(OSError, match="No data available"):
        handle.call("getxattr", "/srv/deeper/and/deeper", SELINUX)


def test_what_was_written_is_known(tree: GuestTree, handle: Handle) -> None:
    """Whoever wrote it: also a name with a line end; not what was only read."""
    since = checks.now(handle)
    time.sleep(0.05)  # the kernel's clock for files goes in steps
    assert checks.touched(handle, since) == frozenset()
    tree.read("/etc/hosts")
    tree.write("/etc/new", b"new")
    handle.call("chmod", 0o600, "/boot/vmlinuz-1 and\na line")
    assert checks.touched(handle, since) == {"/etc/new", "/boot/vmlinuz-1 and\na line"}
    time.sleep(0.05)
    assert checks.touched(handle, checks.now(handle)) == frozenset()


def test_what_no_change_names(tree: GuestTree, handle: Handle) -> None:
    """A change by a link, and backups, hidden ones too, are named; a stray file is not."""
    tree.write("/etc/network/interfaces.d/card", b"old")
    tree.write("/srv/settings", b"old")
    tree.symlink("/srv/settings", "/etc/settings")
    since, editor = checks.now(handle), Editor(tree=tree)
    time.sleep(0.05)
    for path in ("/etc/network/interfaces.d/card", "/etc/settings", "/etc/fresh"):
        editor.write(path, b"new", what="x", why="y")
    tree.write("/etc/stray", b"")
    inside = Inside(handle=handle, tree=tree, root=mounts.Root(device="/dev/sda", type="ext4", family="linux"), filesystems=())
    made = AdaptResult(os=OsInfo(), changes=tuple(editor.changes))
    assert tree.read("/etc/network/interfaces.d/.card.imgtool-orig") == tree.read("/srv/settings.imgtool-orig") == b"old"
    assert list(_unlisted(inside, since, made)) == ["/etc/stray"]


def test_writing_through_a_link(tree: GuestTree) -> None:
    tree.write("/srv/target", b"old")
    tree.symlink("/srv/target", "/srv/link")
    tree.write("/srv/link", b"new")
    assert (tree.read("/srv/target"), tree.readlink("/srv/link")) == (b"new", "/srv/target")
    tree.symlink("other", "/srv/link")
    assert tree.readlink("/srv/link") == "other"
    tree.remove("/srv/link")
    tree.remove("/srv/link")
    assert not tree.lexists("/srv/link")
    tree.rename("/srv/target", "/srv/moved")
    assert "moved" in tree.ls("/srv")
    assert "target" not in tree.ls("/srv")


def test_large_files(tree: GuestTree, tmp_path: Path) -> None:
    data = bytes(range(256)) * (SMALL // 128)
    tree.write("/srv/big", data)
    assert tree.read("/srv/big") == data
    tree.download("/srv/big", str(tmp_path / "big"))
    assert (tmp_path / "big").read_bytes() == data
    tree.upload(str(tmp_path / "big"), "/srv/again")
    assert tree.read("/srv/again") == data
    with pytest.raises(DamagedError, match="at most"):
        tree.read("/srv/big", limit=100)


def test_errors_of_a_call(handle: Handle) -> None:
    with pytest.raises(OSError, match="no_such_device"):
        handle.call("mount", "/dev/no_such_device", "/")
    assert handle.run("echo words; exit 3") == (3, "words")


def test_of_two_roots_the_one_that_names_itself(handle: Handle) -> None:
    """The other is an old copy: its fstab names the file system that it was copied from."""
    handle.call("mkfs", "ext4", "/dev/sdb")
    handle.call("mount", "/dev/sdb", "/")
    handle.call("mkdir", "/etc")
    handle.call("write", "/etc/fstab", b"LABEL=little / ext4 defaults 0 1\n")
    handle.call("umount_all")
    known = volumes.examine(handle)
    found = mounts.roots(handle, known)
    assert [root.device for root in found] == ["/dev/sda", "/dev/sdb"]
    assert mounts.choose(handle, found[::-1], known).device == "/dev/sda"
    assert find(handle, []).warnings == ("there are other systems on /dev/sdb: they are left alone",)
    handle.call("wipefs", "/dev/sdb")


def luks(place: Path) -> Path:
    """What stands before the data: with few rounds for the key, where cryptsetup's own choice takes minutes without KVM."""
    oracle.luks("create", "-q", "-f", "luks", "--object", f"secret,id=key,data={PASSPHRASE}",
                "-o", "key-secret=key,iter-time=10", place / "luks", "4M")
    return place / "luks"


def test_a_root_on_luks_on_lvm_on_md(handle: Handle, tmp_path: Path) -> None:
    """/dev/md → vg/root → LUKS → btrfs with subvolumes; /boot beside it; named by fstab and crypttab."""
    handle.call("part_init", "/dev/sdd", "gpt")
    handle.call("part_add", "/dev/sdd", "p", 2048, 102400)
    handle.call("part_set_name", "/dev/sdd", 1, "bootpart")
    handle.call("mkfs", "ext4", "/dev/sdd1", label="boot disk")
    handle.call("md_create", "imgtool", ["/dev/sdb", "/dev/sdc"], level="raid1")
    (device,) = handle.call("list_md_devices")
    assert "/dev/md/imgtool" in volumes.array_names(handle.call("md_detail", device))
    handle.call("vgcreate", "vg-0", [device])
    handle.call("lvcreate", "root", "vg-0", 200)
    handle.call("upload", str(luks(tmp_path)), "/dev/vg-0/root")
    handle.call("cryptsetup_open", "/dev/vg-0/root", PASSPHRASE, "made")
    handle.call("mkfs", "btrfs", "/dev/mapper/made")
    handle.call("mount_options", "", "/dev/mapper/made", "/")
    for name in ("/@", "/@home", "/@snapshots"):
        handle.call("btrfs_subvolume_create", name)
    handle.call("umount_all")
    handle.call("mount_options", "subvol=@", "/dev/mapper/made", "/")
    uuid = handle.call("vfs_uuid", "/dev/vg-0/root")
    for folder in ("/etc", "/boot", "/home", "/var"):
        handle.call("mkdir", folder)
    handle.call("write", "/etc/crypttab", f"cr_root UUID={uuid} none luks\n".encode())
    handle.call("write", "/etc/fstab", b"/dev/mapper/cr_root / btrfs subvol=@ 0 0\n# a comment\n"
                b"LABEL=boot\\040disk /boot ext4 defaults 0 2\n/dev/mapper/cr_root /home btrfs subvol=@home 0 0\n"
                b"/dev/sdz9 /var/none ext4 defaults 0 0\nserver:/x /mnt nfs defaults 0 0\n")
    handle.call("umount_all")
    handle.call("cryptsetup_close", "/dev/mapper/made")
    handle.call("mkfs", "ext2", "/dev/sda")  # the other root goes, so that the encrypted one is the only one
    with pytest.raises(LockedError, match="/dev/vg-0/root is encrypted"):
        find(handle, [])
    found = find(handle, ["wrong", PASSPHRASE])
    assert found.root
    assert (found.root.family, found.root.type, found.root.options) == ("linux", "btrfs", "subvol=@")
    mounted = mounts.mount_all(handle, found.root, found.volumes, write=True)
    assert [(mount.device, mount.point, mount.options) for mount in mounted.mounts] == [
        (found.root.device, "/", "subvol=@"), ("/dev/sdd1", "/boot", ""), (found.root.device, "/home", "subvol=@home")]
    handle.call("umount_all")
    checks.refuse_damaged(handle, mounted.mounts)


def test_a_damaged_file_system_is_seen(handle: Handle) -> None:
    handle.call("mkfs", "ext4", "/dev/sda", blocksize=1024)
    mount = mounts.Mount(device="/dev/sda", point="/", type="ext4")
    checks.refuse_damaged(handle, [mount])
    handle.call("pwrite_device", "/dev/sda", b"\xff" * 1024, 2048)  # the group descriptors
    with pytest.raises(DamagedError, match="ext4 on /dev/sda is damaged"):
        checks.refuse_damaged(handle, [mount])


def test_what_is_on_the_disks(handle: Handle) -> None:
    known = volumes.examine(handle, [])
    kinds = {one.device: one.type for one in known.filesystems}
    assert kinds["/dev/sdb"] == kinds["/dev/sdc"] == "linux_raid_member"
    assert kinds["/dev/sdd1"] == "ext4"
    assert known.names["LABEL=boot disk"] == known.names["PARTLABEL=bootpart"] == "/dev/sdd1"
    assert known.names["/dev/mapper/vg--0-root"] == "/dev/vg-0/root"
    assert known.disks == ("/dev/sda", "/dev/sdb", "/dev/sdc", "/dev/sdd")


def test_names_of_other_hardware() -> None:
    there = tuple(volumes.FileSystem(device=name, type="ext4") for name in ("/dev/sda1", "/dev/sdb2"))
    known = volumes.Volumes(filesystems=there, names={"UUID=1": "/dev/sda1"}, disks=("/dev/sda", "/dev/sdb"))
    found = {name: mounts.resolve(name, known.names, known) for name in (
        "/dev/vda1", "/dev/hda1", "/dev/xvdb2", "/dev/nvme0n1p1", "/dev/nvme1n1p2", "UUID=1", 'UUID="1"', "/dev/sdc1",
        "/dev/vda9", "tmpfs")}
    assert found == {"/dev/vda1": "/dev/sda1", "/dev/hda1": "/dev/sda1", "/dev/xvdb2": "/dev/sdb2", "/dev/nvme0n1p1": "/dev/sda1",
                     "/dev/nvme1n1p2": "/dev/sdb2", "UUID=1": "/dev/sda1", 'UUID="1"': "/dev/sda1", "/dev/sdc1": None,
                     "/dev/vda9": None, "tmpfs": None}


def folders_of(disk: Path) -> set[Path]:
    """Of libguestfs in /tmp, for the appliance that has this disk: QEMU is told of them."""
    lines = oracle.tool("pgrep", "-a", "-f", f"qemu-system.*{disk}").stdout
    return {Path(name) for name in re.findall(r"/tmp/libguestfs\w+", lines)}


def test_a_crash_is_told_in_a_line(tmp_path: Path) -> None:
    """libguestfs takes eight, of which seven are about its own debugging."""
    disk = tmp_path / "x.qcow2"
    oracle.tool("qemu-img", "create", "-q", "-f", "qcow2", disk, "1M")

    folders: set[Path] = set()

    def asked_after_its_end() -> None:
        with appliance([str(disk)], stop=Stop()) as handle:
            folders.update(folders_of(disk))
            oracle.tool("pkill", "-KILL", "-f", f"qemu-system.*{disk}")
            time.sleep(1)  # libguestfs knows of it
            handle.call("list_partitions")

    with pytest.raises(ImgtoolError) as raised:
        asked_after_its_end()
    assert str(raised.value).startswith("the libguestfs appliance ended in list_partitions: ")
    assert "\n" not in str(raised.value)
    assert folders
    assert not [folder for folder in folders if folder.exists()]


@pytest.mark.parametrize("stopped", [False, True])
def test_nothing_of_it_is_left(tmp_path: Path, *, stopped: bool) -> None:
    """Done, or stopped while it works."""
    disk, stop = tmp_path / "x.qcow2", Stop()
    oracle.tool("qemu-img", "create", "-q", "-f", "qcow2", disk, "1M")
    with suppress(StoppedError), appliance([str(disk)], stop=stop) as handle:
        folders = folders_of(disk)
        if stopped:
            threading.Timer(0.5, stop.set).start()
            handle.run("sleep 60")
    assert folders
    assert not [folder for folder in folders if folder.exists()]


def test_the_appliance_may_die(tmp_path: Path) -> None:
    """Killed from outside, it is an error of ours, and nothing hangs."""
    disk = tmp_path / "x.qcow2"
    oracle.tool("qemu-img", "create", "-q", "-f", "qcow2", disk, "1M")
    with pytest.raises(ImgtoolError, match="appliance"), appliance([str(disk), str(tmp_path / "none.qcow2")], stop=Stop()):
        pass
