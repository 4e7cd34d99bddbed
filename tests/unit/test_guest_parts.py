"""Small parts of inspect and adapt that need no appliance: key files, descriptions, other systems, what is remembered of KVM."""

from __future__ import annotations

import errno
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest

from fixtures import machine_folder
from imgtool import kvm
from imgtool.cli.app import program
from imgtool.cli.output import guest_lines
from imgtool.errors import DamagedError, ImgtoolError, NoSpaceError, RefusedError, UsageError
from imgtool.guests import checks, inside, knowledge, mounts, other
from imgtool.guests.keys import read_keys
from imgtool.guests.linux.drivers import capabilities
from imgtool.guests.mounts import Mount, Mounted
from imgtool.guests.volumes import Volumes, tags
from imgtool.guests.windows import versions
from imgtool.guests.windows.inspect import _prefix
from imgtool.model.guest import (
    AdaptRequest,
    AdaptResult,
    Change,
    DeviceReference,
    FileSystem,
    GuestInfo,
    NicConfig,
    OsInfo,
    Platform,
)
from imgtool.progress import Silent
from imgtool.steps.machine_disks import machine_disks, machine_nics
from tests.folder_tree import FolderTree
from tests.program import imgtool


def test_key_files(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("secret\n")
    (tmp_path / "b").write_text("other")
    assert read_keys([str(tmp_path / "a"), str(tmp_path / "b")]) == ("secret\n", "secret", "other")
    for data in (b"", b"\xff\xfe", b"a\0b", b"x" * 9000):
        (tmp_path / "bad").write_bytes(data)
        with pytest.raises(UsageError, match="holds no passphrase"):
            read_keys([str(tmp_path / "bad")])
    with pytest.raises(UsageError, match="cannot read"):
        read_keys([str(tmp_path / "none")])


class Blkid:
    """An appliance that knows partition types."""

    def __init__(self, **kinds: str) -> None:
        self.kinds = kinds

    def call(self, name: str, *args: str) -> object:
        return list(self.kinds) if name == "list_partitions" else {"PART_ENTRY_TYPE": self.kinds[args[0]]}


@pytest.mark.parametrize(("kind", "family"), [
    ("0xa5", "freebsd"), ("0xa6", "openbsd"), ("516e7cb6-6ecf-11d6-8ff8-00022d09712b", "freebsd"), ("0x83", "unknown"),
    ("48465300-0000-11aa-aa11-00306543ecac", "macos"), ("0xfb", "esxi")])
def test_other_systems_by_their_partitions(kind: str, family: str) -> None:
    known = Volumes(filesystems=(), names={})
    assert other.family(Blkid(sda1="0x82", sda2=kind), known) == family  # type: ignore[arg-type]


@pytest.mark.parametrize(("number", "kind", "words"), [
    (errno.EROFS, RefusedError, "is read-only: write: /x"), (errno.ENOSPC, NoSpaceError, "is full: write: /x"),
    (errno.ELOOP, DamagedError, "not what it should be: write: /x"), (errno.EIO, DamagedError, "not what it should be"),
    (0, ImgtoolError, "not what it should be")])
def test_what_a_file_system_of_the_guest_says_no_to(number: int, kind: type[ImgtoolError], words: str) -> None:
    with pytest.raises(kind, match=words) as caught, inside._explained():
        raise OSError(number, "write: /x")
    assert caught.value.hint
    assert type(caught.value) is kind
    with pytest.raises(FileNotFoundError), inside._explained():
        Path("/none/of/this/host").read_bytes()


def test_other_systems_by_their_file_systems() -> None:
    known = Volumes(filesystems=(FileSystem(device="/dev/sda", type="ufs"),), names={})
    assert other.family(Blkid(), known) == "bsd"  # type: ignore[arg-type]


def test_bitlocker_is_described_but_not_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    known = Volumes(filesystems=(FileSystem(device="/dev/sda2", type="BitLocker"),), names={})
    monkeypatch.setattr("imgtool.guests.volumes.examine", lambda *_: known)
    monkeypatch.setattr("imgtool.guests.mounts.roots", lambda *_: [])
    with pytest.raises(RefusedError, match="encrypted with BitLocker"):
        inside.find(Blkid(), ())  # type: ignore[arg-type]
    found = inside.find(Blkid(), (), write=False)  # type: ignore[arg-type]
    assert found.warnings == ("/dev/sda2 is encrypted, and stays closed",)
    info = knowledge.stranger(Blkid(), found.volumes)  # type: ignore[arg-type]
    assert (info.os.family, info.details) == ("windows", {"bitlocker": ["/dev/sda2"]})


def test_the_subvolumes_that_the_guest_mounts(tmp_path: Path) -> None:
    mounts = [Mount(device="/dev/sda2", point=point, type="btrfs", options=options)
              for point, options in (("/", "subvol=@"), ("/home", "compress=zstd,subvol=@home"), ("/srv", ""))]
    one = inside._measured(FolderTree(tmp_path), FileSystem(device="/dev/sda2", type="btrfs"),  # type: ignore[arg-type]
                           Mounted(mounts=tuple(mounts)))
    assert (one.mounted_at, one.subvolumes) == ("/", ("@", "@home"))


@pytest.mark.parametrize(("name", "device"), [
    ("/dev/sda1", "/dev/vda1"), ("/dev/nvme0n1p1", "/dev/vda1"), ("/dev/nvme1n1p1", None), (f"/dev/nvme{'9' * 5000}n1p1", None),
    ("/dev/disk/by-path/pci-0000:03:00.0-scsi-0:0:0:0-part1", "/dev/vda1"), ("/dev/disk/by-id/ata-QEMU_1-part1", "/dev/vda1"),
    ("/dev/disk/by-id/dm-name-vg-part1", None), ("UUID=ab-12", "/dev/vda1"), ("UUID=ab-13", None),
    ("/dev/cciss/c0d0p1", "/dev/vda1"),
    (f"/dev/nvme0n1p{'9' * 5000}", None), ("/dev/nvme\u00b2n1p1", None), (f"/dev/sda{'1' * 5000}", None)])
def test_names_of_an_fstab(name: str, device: str | None) -> None:
    volumes = Volumes(filesystems=(FileSystem(device="/dev/vda1", type="ext4"),), names={}, disks=("/dev/vda",))
    assert mounts.resolve(name, {"UUID=AB-12": "/dev/vda1"}, volumes) == device


FSTAB = "/dev/sda1 / ext4 defaults 0 1\n{line}\nserver:/usr /usr nfs defaults 0 0\ntmpfs /var tmpfs defaults 0 0\n"


@pytest.mark.parametrize(("line", "absent"), [
    ("UUID=0-0 /boot ext4 defaults 0 2", "UUID=0-0"), ("/dev/sdb1 /boot/ ext4 defaults 0 2", "/dev/sdb1"),
    ("UUID=0-0 /boot ext4 nofail 0 2", None), ("UUID=0-0 /srv ext4 defaults 0 2", None)])
def test_what_the_guest_needs_and_nobody_gave(line: str, absent: str | None, tmp_path: Path,
                                              monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the initramfs in the empty folder would be taken for the guest's, or none."""
    tree = FolderTree(tmp_path)
    tree.write("/etc/fstab", FSTAB.format(line=line).encode())
    monkeypatch.setattr(mounts, "GuestTree", lambda _: nullcontext(
        SimpleNamespace(text=lambda path, **_: tree.read(path).decode() if tree.exists(path) else "")))
    volumes = Volumes(filesystems=(FileSystem(device="/dev/sda1", type="ext4"),), names={}, disks=("/dev/sda",))
    handle, root = SimpleNamespace(call=lambda *_, **__: None), mounts.Root(device="/dev/sda1", type="ext4", family="linux")
    warnings = mounts.mount_all(handle, root, volumes, write=False).warnings  # type: ignore[arg-type]
    assert warnings == ((f"{absent}, the guest's /boot, is not on the disks that were given",) if absent else ())
    with pytest.raises(RefusedError, match="the guest's /boot, is not on the disks") if absent else nullcontext():
        mounts.mount_all(handle, root, volumes, write=True)  # type: ignore[arg-type]


class Mounting:
    """An appliance with file systems, some of which cannot be mounted; ``links``: where a mount point of the guest leads."""

    def __init__(self, *broken: str, links: dict[str, str] | None = None, subvolumes: object = ()) -> None:
        self.broken, self.links, self.subvolumes, self.mounted = broken, links or {}, subvolumes, list[str]()

    def call(self, name: str, *args: str, **_: object) -> object:
        if name == "mount_options":
            if args[1] in self.broken:
                raise OSError(errno.EINVAL, "wrong fs type")
            self.mounted.append(args[2])
        if name == "umount_all":
            self.mounted.clear()
        if name == "btrfs_subvolume_list" and isinstance(self.subvolumes, Exception):
            raise self.subvolumes
        return {"realpath": self.links.get(args[-1], args[-1]) if args else "", "btrfs_subvolume_list": self.subvolumes}.get(name)


THREE = "/dev/sda1 / ext4 defaults 0 1\n/dev/sda2 /boot ext4 defaults 0 2\n/dev/sda3 /srv xfs defaults 0 2\n"


def mounting(handle: Mounting, monkeypatch: pytest.MonkeyPatch, *, write: bool) -> Mounted:
    monkeypatch.setattr(mounts, "GuestTree", lambda _: nullcontext(
        SimpleNamespace(text=lambda path, **_: THREE if path == "/etc/fstab" else "")))
    kinds = {"/dev/sda1": "ext4", "/dev/sda2": "ext4", "/dev/sda3": "xfs"}
    volumes = Volumes(filesystems=tuple(FileSystem(device=device, type=kind) for device, kind in kinds.items()), names={},
                      disks=("/dev/sda",))
    root = mounts.Root(device="/dev/sda1", type="ext4", family="linux")
    return mounts.mount_all(handle, root, volumes, write=write)  # type: ignore[arg-type]


@pytest.mark.parametrize("write", [True, False])
def test_a_root_that_cannot_be_mounted(monkeypatch: pytest.MonkeyPatch, *, write: bool) -> None:
    words = r"the root file system on /dev/sda1 \(ext4\) cannot be mounted" + (" for writing" if write else "") + "$"
    with pytest.raises(DamagedError, match=words):
        mounting(Mounting("/dev/sda1"), monkeypatch, write=write)


@pytest.mark.parametrize("handle", [Mounting("/dev/sda2"), Mounting(links={"/boot": "/etc"})], ids=["broken", "link"])
def test_without_its_boot_nothing_is_changed(monkeypatch: pytest.MonkeyPatch, handle: Mounting) -> None:
    """Else kernels would be looked for, and written, in the folder below. A link may lead out of what the guest means."""
    with pytest.raises(DamagedError, match="/dev/sda2, the guest's /boot, cannot be mounted"):
        mounting(handle, monkeypatch, write=True)
    found = mounting(handle, monkeypatch, write=False)
    assert [mount.point for mount in found.mounts] == ["/", "/srv"]
    assert found.warnings == ("/dev/sda2, the guest's /boot, cannot be mounted (ext4)",)


def test_without_its_data_it_is_changed_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    found = mounting(Mounting("/dev/sda3"), monkeypatch, write=True)
    assert [mount.point for mount in found.mounts] == ["/", "/boot"]
    assert found.warnings == ("/dev/sda3, the guest's /srv, cannot be mounted (xfs)",)


@pytest.mark.parametrize(("handle", "choices"), [
    (Mounting("/dev/sda1"), []), (Mounting(subvolumes=OSError(5, "no")), [""]),
    (Mounting(subvolumes=[{"btrfssubvolume_path": name} for name in ("@", "a,b", "@snapshots/1", "x/.snapshots/2")]),
     ["", "subvol=@"])])
def test_subvolumes_that_may_be_a_root(handle: Mounting, choices: list[str]) -> None:
    assert mounts._choices(handle, "/dev/sda1", "btrfs") == choices  # type: ignore[arg-type]
    assert not handle.mounted


def test_what_cannot_be_mounted_is_no_system() -> None:
    volumes = Volumes(filesystems=(FileSystem(device="/dev/sda1", type="ext4"), FileSystem(device="/dev/sda2", type="vfat")),
                      names={}, disks=("/dev/sda",))
    handle = Mounting("/dev/sda1")
    assert mounts.roots(handle, volumes) == []  # type: ignore[arg-type]
    assert not handle.mounted


def test_of_two_roots_one_that_cannot_be_mounted_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    fstab = "/dev/sdb1 / ext4 defaults 0 1\n"
    monkeypatch.setattr(mounts, "GuestTree", lambda _: nullcontext(
        SimpleNamespace(text=lambda path, **_: fstab if path == "/etc/fstab" else "")))
    two = [mounts.Root(device=f"/dev/sd{letter}1", type="ext4", family="linux") for letter in "ab"]
    volumes = Volumes(filesystems=tuple(FileSystem(device=one.device, type="ext4") for one in two), names={},
                      disks=("/dev/sda", "/dev/sdb"))
    handle = Mounting("/dev/sda1")
    assert mounts.choose(handle, two, volumes) == two[1]  # type: ignore[arg-type]
    assert not handle.mounted
    assert mounts.choose(Mounting("/dev/sda1", "/dev/sdb1"), two, volumes) == two[0]  # type: ignore[arg-type]


@pytest.mark.parametrize(("family", "code", "words"), [
    ("windows", 14, "Windows sleeps on it"), ("windows", 15, "not shut down cleanly"), ("windows", 3, "probe ends with 3"),
    ("windows", 0, None), ("linux", 14, None)])
def test_a_windows_that_sleeps_is_not_written(family: str, code: int, words: str | None) -> None:
    handle, root = SimpleNamespace(call=lambda *_: code), mounts.Root(device="/dev/sda2", type="ntfs", family=family)
    with pytest.raises(RefusedError, match=words) if words else nullcontext() as caught:
        inside._refuse_unsafe(handle, root)  # type: ignore[arg-type]
    assert words is None or "powercfg /h off" in caught.value.hint


def test_a_change_that_left_a_file_system_unsound_is_an_error() -> None:
    """Before it is committed: the image stays as it was."""
    said = {"/dev/sda1": (0, "clean"), "/dev/sda2": (4, "Pass 1\n/dev/sda2: ** has errors **")}
    handle = SimpleNamespace(run=lambda command: next(answer for device, answer in said.items() if device[-1] in command[-2:]))
    good, bad = (Mount(device=device, point="/", type="ext4") for device in said)
    checks.require_sound(handle, [good])  # type: ignore[arg-type]
    with pytest.raises(ImgtoolError, match=r"after the change .* ext4 on /dev/sda2 was not sound: .*has errors") as caught:
        checks.require_sound(handle, [good, bad])  # type: ignore[arg-type]
    assert "nothing was changed in the image" in str(caught.value.hint)


def test_a_list_of_changed_files_that_was_not_made_is_no_empty_list() -> None:
    handle = SimpleNamespace(run=lambda command: (0, "1.5") if command.startswith("date") else (1, "find: Input/output error"))
    with pytest.raises(ImgtoolError, match=r"cannot be listed: find: Input/output error"):
        checks.touched(handle, "1.0")  # type: ignore[arg-type]


def test_a_device_that_blkid_does_not_know_has_no_tags() -> None:
    def call(*_: str) -> object:
        raise OSError(errno.EIO, "blkid")

    assert tags(SimpleNamespace(call=call), "/dev/sda1") == {}  # type: ignore[arg-type]
    assert tags(SimpleNamespace(call=lambda *_: {"LABEL": r"a\ b"}), "/dev/sda1") == {"LABEL": "a b"}  # type: ignore[arg-type]


@pytest.mark.parametrize("fails", [None, "dracut -f"])
def test_the_guests_own_tool(monkeypatch: pytest.MonkeyPatch, fails: str | None) -> None:
    """What it leaves out is done afterwards; what it cannot do is an error, and the next one is not called."""
    ran: list[str] = []

    def call(_: str, argv: list[str], **__: object) -> None:
        ran.append(" ".join(argv))
        if ran[-1] == fails:
            raise OSError(0, "dracut: no such module")

    adapted = iter([AdaptResult(os=OsInfo(), changes=(Change(what="one", where="a", why="b"),), warnings=("same",)),
                    AdaptResult(os=OsInfo(), changes=(Change(what="two", where="a", why="b"),), warnings=("same", "other"))])
    monkeypatch.setattr(knowledge.linux, "adapt", lambda *_: next(adapted))
    monkeypatch.setattr(knowledge.linux, "commands", lambda *_: nullcontext([("dracut", "-f"), ("dracut", "-f", "x")]))
    guest = SimpleNamespace(root=mounts.Root(device="/dev/sda1", type="ext4", family="linux"), tree=None, filesystems=(),
                            handle=SimpleNamespace(call=call))
    request = AdaptRequest(images=(), platform=Platform.KVM, rebuild_initramfs=True)
    if fails:
        with pytest.raises(ImgtoolError, match="own tool failed: dracut -f: dracut: no such module") as caught:
            knowledge.change(guest, request, Silent())  # type: ignore[arg-type]
        assert "--rebuild-initramfs" in str(caught.value.hint)
        assert ran == ["dracut -f"]
        return
    made = knowledge.change(guest, request, Silent())  # type: ignore[arg-type]
    assert [change.what for change in made.changes] == ["one", "ran dracut -f", "ran dracut -f x", "two"]
    assert made.warnings == ("same", "other")


@pytest.mark.parametrize(("said", "build"), [
    ("19045", 19045), (None, 0), ("", 0), ("\u00b2\u00b2", 0), ("9" * 5000, 0), ("-1", 0)])
def test_builds_of_windows(said: str | None, build: int) -> None:
    assert versions.build_number(said) == build


@pytest.mark.parametrize(("mask", "prefix"), [
    ("255.255.252.0", "22"), ("255.255.255.\u00b2", "255.255.255.\u00b2"), (f"255.0.0.{'0' * 5000}", f"255.0.0.{'0' * 5000}")])
def test_masks_of_windows(mask: str, prefix: str) -> None:
    assert _prefix(mask) == prefix


@pytest.mark.parametrize(("version", "machine"), [
    ("6.1.0-18-amd64", "q35"), ("2.6.18-8.el5", "i440fx"), ("6.\u00b2-x", "q35"), ("\u00b2", "i440fx"), ("9" * 5000, "q35")])
def test_versions_of_kernels_are_names_of_folders(version: str, machine: str) -> None:
    able = capabilities(Platform.KVM, version, early=lambda _: True, has=lambda _: True, agent=False)
    assert able.machine == machine


def test_what_inspect_says_to_a_person() -> None:
    card = NicConfig(name="eth0", system="ifcfg", path="/x", mac="52:54:00:00:00:01", addresses=("192.0.2.7/24",))
    info = GuestInfo(os=OsInfo(family="linux"), selinux="enforcing", cloud_init=True, tools=("open-vm-tools",), nics=(card,),
                     references=(DeviceReference(path="/etc/fstab", what="fstab", name="/dev/sda1", stable="UUID=u"),))
    lines = list(guest_lines(info))
    assert "network:    eth0 (ifcfg) on 52:54:00:00:00:01 192.0.2.7/24" in lines
    assert lines[-4:] == ["tools:      open-vm-tools", "SELinux:    enforcing", "cloud-init: yes",
                          "by name:    /etc/fstab (fstab): /dev/sda1, which is UUID=u"]


HEAD = '.encoding = "UTF-8"\nconfig.version = "8"\nvirtualHW.version = "14"\ndisplayName = "x"\nscsi0.present = "TRUE"\n'


def described(vmx: Path, *paths: str) -> None:
    vmx.write_text(HEAD + "".join(f'scsi0:{number}.present = "TRUE"\nscsi0:{number}.fileName = "{path}"\n'
                                  for number, path in enumerate(paths)))


def test_disks_of_a_description(tmp_path: Path) -> None:
    vmx, elsewhere = tmp_path / "x" / "x.vmx", tmp_path / "y"
    for path in (vmx.parent / "a.vmdk", elsewhere / "b.vmdk", elsewhere / "c.vmdk"):
        path.parent.mkdir(exist_ok=True)
        path.touch()
    described(vmx, "a.vmdk", str(elsewhere / "b.vmdk"), "/vmfs/volumes/datastore1/x/c.vmdk")
    with pytest.raises(RefusedError, match="not in its directory"):
        machine_disks([str(vmx)])
    found = machine_disks([str(vmx)], [str(elsewhere)])
    assert found == (str(vmx.parent / "a.vmdk"), str(elsewhere / "b.vmdk"), str(elsewhere / "c.vmdk"))
    with pytest.raises(UsageError, match="name it alone"):
        machine_disks([str(vmx), "b.vmdk"])
    described(vmx)
    with pytest.raises(UsageError, match="names no disk"):
        machine_disks([str(vmx)])
    assert machine_disks(["a.raw", "b.raw"]) == ("a.raw", "b.raw")


def nics_of(vmx: Path, *macs: str | None) -> None:
    vmx.write_text(HEAD + "".join(
        f'ethernet{number}.present = "TRUE"\n' + (f'ethernet{number}.addressType = "static"\nethernet{number}.address = "{mac}"\n'
                                                  if mac else "") for number, mac in reversed(list(enumerate(macs)))))


def test_network_cards_of_a_description(tmp_path: Path) -> None:
    vmx = tmp_path / "x.vmx"
    nics_of(vmx, "52:54:00:00:00:02", "52:54:00:00:00:01")
    assert machine_nics(str(vmx)) == ("52:54:00:00:00:02", "52:54:00:00:00:01")
    nics_of(vmx, "52:54:00:00:00:02", None)
    assert machine_nics(str(vmx)) == ()
    with pytest.raises(UsageError, match="no description of a machine"):
        machine_nics("x.raw")


@pytest.mark.parametrize(("words", "nics", "macs"), [
    (["{vmx}"], ("00:50:56:95:72:98",), ()),
    (["{vmx}", "--mac", "00:50:56:95:72:98=52:54:00:00:00:09"], ("52:54:00:00:00:09",),
     (("00:50:56:95:72:98", "52:54:00:00:00:09"),)),
    (["a.raw", "--machine", "{vmx}"], ("00:50:56:95:72:98",), ()),
    (["a.raw"], (), ()),
])
def test_adapt_takes_the_cards_of_the_machine(words: list[str], nics: tuple[str, ...], macs: tuple[tuple[str, str], ...],
                                              tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[AdaptRequest] = []
    monkeypatch.setattr("imgtool.steps.adapt.adapt", lambda request, *_, **__: asked.append(request) or AdaptResult(os=OsInfo()))
    vmx = tmp_path / "vm.vmx"
    vmx.write_text(machine_folder.vmx("vm", ("vm.vmdk",)))
    (tmp_path / "vm.vmdk").touch()
    program(["adapt"])(["adapt", *(word.format(vmx=vmx) for word in words), "--for", "kvm"], standalone_mode=False)
    assert (asked[0].nics, asked[0].macs) == (nics, macs)
    assert asked[0].images == ((str(tmp_path / "vm.vmdk"),) if words[0] == "{vmx}" else ("a.raw",))


def test_a_hang_of_kvm_is_remembered_until_the_next_boot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    boot = tmp_path / "boot_id"
    boot.write_text("one\n")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(kvm, "BOOT_ID", boot)
    monkeypatch.setattr(kvm.os, "access", lambda *_: True)
    monkeypatch.setattr(kvm.os.path, "isdir", lambda _: True)
    assert kvm.kvm_state()[0]
    with monkeypatch.context() as patch:
        patch.setattr(kvm.os, "access", lambda *_: False)
        assert kvm.kvm_state() == (False, "no /dev/kvm that we may open: guests run under emulation (TCG), slowly")
    kvm.remember_hang()
    assert kvm.kvm_state() == (False, kvm.HANGS)
    boot.write_text("two\n")
    assert kvm.kvm_state()[0]


@pytest.mark.parametrize(("build", "server", "first"), [
    (7601, False, "w7"), (7601, True, "2k8R2"), (9600, True, "2k12R2"), (17763, True, "2k19"), (19045, False, "w10"),
    (22631, False, "w11"), (20348, True, "2k22"), (26100, True, "2k25"), (9200, False, "w8")])
def test_folders_of_virtio_win(build: int, server: bool, first: str) -> None:
    assert versions.driver_folders(build, server=server)[0] == first


@pytest.mark.parametrize("words", [
    ("adapt", "x.raw", "--for", "xen"), ("adapt", "x.raw"), ("adapt", "--for", "kvm"), ("inspect",),
    ("adapt", "x.raw", "--for", "kvm", "--mac", "00:11:22:33:44:55"), ("adapt", "none.raw", "--for", "kvm"),
    ("inspect", "none.raw")])
def test_wrong_use(tmp_path: Path, words: tuple[str, ...]) -> None:
    (tmp_path / "x.raw").write_bytes(bytes(4096))
    done = imgtool(*words, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: ")
