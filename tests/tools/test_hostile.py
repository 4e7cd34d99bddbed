"""Images from strangers, through the command line: what a file says makes imgtool neither read nor write elsewhere.

Each test runs in a box, a directory beside another one with a secret in it; after a refusal the box holds what it held.
"""

from __future__ import annotations

import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fixtures import vmdk_kinds
from fixtures.patterns import write_raw
from fixtures.run import bound, need, run
from imgtool.files import host_id
from tests.program import ENVIRONMENT, ROOT, imgtool, result
from tests.tools.hostile_images import SECRET, qcow2, vmdk

DISK = "64k:A 448k:- 512k:b"
SIZE = 1 << 20
SECTORS = SIZE // 512


@pytest.fixture
def box(tmp_path: Path) -> Path:
    """The directory of the image; ``../outside`` has what it must not reach."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text(f"{SECRET}\n" * (SIZE // (len(SECRET) + 1)) + "x" * (SIZE % (len(SECRET) + 1)))
    vmdk(outside / "parent.vmdk", f'RW {SECTORS} FLAT "secret" 0')
    qcow2(outside / "base.qcow2")
    inside = tmp_path / "box"
    inside.mkdir()
    return inside


def listing(box: Path) -> dict[str, tuple[int, int]]:
    """Name, size and time of all that is in the box, hidden things too."""
    return {str(path): (path.lstat().st_size, path.lstat().st_mtime_ns) for path in sorted(box.rglob("*"))}


def said(done: subprocess.CompletedProcess[str]) -> str:
    """What a person sees: complete, without control characters, and never a traceback."""
    text = done.stdout + done.stderr
    assert all(char.isprintable() or char in "\n\t" for char in text), ascii(text)
    assert "Traceback" not in text
    assert "bug of imgtool" not in text
    assert SECRET not in text
    return done.stderr


def refuses(code: int, box: Path, *args: object, hint: str | None = None) -> str:
    """Runs a command that must end with ``code``, an error (and a hint), and the box as it was."""
    before = listing(box)
    done = imgtool(*args, cwd=box, timeout=120)
    stderr = said(done)
    assert done.returncode == code, (done.returncode, done.stdout, stderr)
    if "check" not in args:
        assert stderr.startswith("error: "), stderr
    if hint is not None:
        assert f"hint: {hint}" in stderr or hint in stderr.partition("hint: ")[2], stderr
    assert listing(box) == before
    return stderr


def refuses_all(code: int, box: Path, name: str, hint: str | None = None) -> None:
    """Every way in which an image is read: by us, and by QEMU (which is asked only after us)."""
    refuses(code, box, "info", name, hint=hint)
    refuses(code, box, "convert", name, "out.vhdx", "--to", "vhdx", hint=hint)


def converts(box: Path, *args: object) -> None:
    done = imgtool("convert", *args, cwd=box, timeout=120)
    said(done)
    assert done.returncode == 0, done.stderr


# Names in an image ----------

OUT = "--allow-external"
LEADS_OUT = {
    "absolute": ("{outside}/secret", OUT),
    "parent": ("../outside/secret", OUT),
    "deep": ("./a/../../outside/secret", OUT),
    "link": ("link", OUT),
    "link to a link": ("link2", OUT),
    "directory link": ("out/secret", OUT),
    "hosts": ("/etc/shadow", OUT),
    "zero": ("/dev/zero", OUT),
    "disk": ("/dev/sda", OUT),
    "file outside": ("file:{outside}/secret", OUT),
    "file relative": ("file:../outside/secret", OUT),
    "slashes": ("file:///{outside}/secret", OUT),
    "proc": ("/proc/self/environ", OUT),
    "link to a device": ("null", OUT),
    "json": ('json:{{"driver":"file","filename":"{outside}/secret"}}', "rebase"),
    "nbd": ("nbd://localhost:10809/x", "rebase"),
    "nbd unix": ("nbd+unix:///x?socket=/tmp/x", "rebase"),
    "http": ("http://localhost/x.qcow2", "rebase"),
    "https": ("https://localhost/x", "rebase"),
    "ssh": ("ssh://root@localhost/etc/passwd", "rebase"),
    "fat": ("fat:rw:{outside}", "rebase"),
    "vvfat": ("VVFAT:{outside}", "rebase"),
    "blkdebug": ("blkdebug::{outside}/secret", "rebase"),
    "fd": ("fd:0", "rebase"),
    "upper case": ("FILE:/etc/shadow", "rebase"),
    "rbd": ("rbd:pool/image", "rebase"),
    "fifo": ("fifo", None),
    "directory": ("folder", None),
    "socket": ("socket", None),
    "itself as a directory": (".", None),
}


def furnish(box: Path) -> None:
    """Links, and things that are no files."""
    outside = box.parent / "outside"
    (box / "link").symlink_to(outside / "secret")
    (box / "link2").symlink_to("link")
    (box / "out").symlink_to(outside)
    (box / "null").symlink_to("/dev/null")
    (box / "folder").mkdir()
    os.mkfifo(box / "fifo")
    with socket.socket(socket.AF_UNIX) as server:
        here = os.open(".", os.O_RDONLY)
        os.chdir(box)  # a socket's path must be short
        server.bind("socket")
        os.fchdir(here)
        os.close(here)


@pytest.mark.parametrize("name", LEADS_OUT)
def test_backing_files_outside_are_refused(box: Path, name: str) -> None:
    furnish(box)
    pattern, hint = LEADS_OUT[name]
    text = pattern.format(outside=box.parent / "outside")
    qcow2(box / "x.qcow2", backing=text, backing_format="raw")
    refuses(4, box, "info", "x.qcow2", hint=hint)
    refuses(4, box, "convert", "x.qcow2", "out.raw", "--to", "raw", hint=hint)


@pytest.mark.parametrize("name", ["absolute", "parent", "link", "directory link", "json", "nbd", "fifo", "directory", "socket"])
def test_every_command_refuses_them(box: Path, name: str) -> None:
    furnish(box)
    text = LEADS_OUT[name][0].format(outside=box.parent / "outside")
    qcow2(box / "x.qcow2", backing=text)
    write_raw(box / "other.raw", "1M:-")
    for args in (
        ("map", "x.qcow2"),
        ("check", "x.qcow2"),
        ("verify", "x.qcow2", "other.raw"),
        ("verify", "other.raw", "x.qcow2"),
        ("allocate", "x.qcow2", "--thin"),
        ("convert", "x.qcow2", "--to", "raw", "--dry-run"),
        ("convert", "x.qcow2", "--to", "vmdk", "--subformat", "streamOptimized"),
        ("convert", "x.qcow2", "--to", "vdi"),
    ):
        refuses(4, box, *args)


@pytest.mark.parametrize("name", ["absolute", "parent", "link", "directory link", "json", "nbd", "file outside", "fifo", "zero"])
def test_data_files_outside_are_refused(box: Path, name: str) -> None:
    furnish(box)
    pattern, hint = LEADS_OUT[name]
    qcow2(box / "x.qcow2", data_file=pattern.format(outside=box.parent / "outside"))
    refuses_all(4, box, "x.qcow2", hint)


@pytest.mark.parametrize(
    "name", ["absolute", "parent", "link", "directory link", "json", "nbd", "disk", "zero", "fifo", "directory", "socket"]
)
def test_extents_outside_are_refused(box: Path, name: str) -> None:
    furnish(box)
    pattern, hint = LEADS_OUT[name]
    text = pattern.format(outside=box.parent / "outside").replace('"', "'")
    for number, kind in enumerate(("FLAT", "VMFS", "SPARSE", "SESPARSE", "VMFSSPARSE")):
        vmdk(box / "x.vmdk", f'RW {SECTORS} {kind} "{text}"')
        refuses(4, box, *(("info", "x.vmdk") if number else ("convert", "x.vmdk", "o.raw", "--to", "raw")), hint=hint)


@pytest.mark.parametrize(
    "text", ["../outside/parent.vmdk", "{outside}/parent.vmdk", "out/parent.vmdk", "C:\\VMs\\x.vmdk", "json:{{}}"]
)
def test_parents_outside_are_refused(box: Path, text: str) -> None:
    furnish(box)
    write_raw(box / "x-flat.vmdk", DISK)
    vmdk(
        box / "x.vmdk",
        f'RW {SECTORS} FLAT "x-flat.vmdk"',
        parent=text.format(outside=box.parent / "outside"),
        parent_cid="11111111",
    )
    refuses_all(4, box, "x.vmdk", "image")


def test_a_base_may_not_lead_out_either(box: Path) -> None:
    qcow2(box / "base.qcow2", backing="../outside/secret", backing_format="raw")
    qcow2(box / "x.qcow2", backing="base.qcow2", backing_format="qcow2")
    refuses_all(4, box, "x.qcow2", OUT)


def test_allow_external_follows_files_and_no_protocols(box: Path) -> None:
    furnish(box)
    qcow2(box / "x.qcow2", backing="../outside/secret", backing_format="raw")
    assert result("info", "x.qcow2", OUT, cwd=box)["backing"] == str(box.parent / "outside" / "secret")
    for text in ("json:{}", "nbd://localhost/"):
        qcow2(box / "y.qcow2", backing=text)
        refuses(2, box, "info", "y.qcow2", OUT)
    qcow2(box / "z.qcow2", backing="/dev/zero", backing_format="raw")
    refuses(4, box, "info", "z.qcow2", OUT)


def test_names_inside_are_followed(box: Path) -> None:
    write_raw(box / "base.raw", DISK)
    for number, name in enumerate(("base.raw", "./base.raw", "file:base.raw", str(box / "base.raw"), "../box/base.raw")):
        qcow2(box / f"{number}.qcow2", backing=name, backing_format="raw")
        assert result("verify", f"{number}.qcow2", "base.raw", cwd=box)["identical"]


def test_what_the_user_types_is_followed(box: Path) -> None:
    """oVirt's chains: links in one directory to images in others, which name each other as in the first."""
    furnish(box)
    assert result("info", "link", cwd=box)["virtual_size"] == SIZE
    store = box.parent / "store"
    for name, backing in (("a", ""), ("b", "a")):
        (store / name).mkdir(parents=True)
        qcow2(store / name / name, backing=backing, backing_format="qcow2")
        (box / name).symlink_to(store / name / name)
    refuses(4, box, "info", "b", hint=OUT)
    assert result("info", "b", OUT, cwd=box)["backing"] == str(store / "a" / "a")


# Formats that lie ----------


def test_a_base_called_raw_is_read_as_raw_whatever_it_holds(box: Path) -> None:
    """A guest may write a qcow2 header with a backing file into its raw disk: the overlay that says raw is believed."""
    qcow2(box / "base.img", backing=str(box.parent / "outside" / "secret"), backing_format="raw")
    qcow2(box / "x.qcow2", backing="base.img", backing_format="raw", size=SIZE)
    converts(box, "x.qcow2", "out.raw", "--to", "raw")
    assert (box / "out.raw").read_bytes().startswith(b"QFI\xfb")
    assert SECRET.encode() not in (box / "out.raw").read_bytes()


@pytest.mark.parametrize("kind", ["qcow2", "vmdk", "vhdx", "vdi"])
def test_a_base_that_is_not_what_the_overlay_says_is_damaged(box: Path, kind: str) -> None:
    write_raw(box / "base.img", DISK)
    qcow2(box / "x.qcow2", backing="base.img", backing_format=kind)
    refuses_all(5, box, "x.qcow2")


def test_a_base_without_a_recorded_format_goes_by_the_same_rules(box: Path) -> None:
    qcow2(box / "base.raw", backing=str(box.parent / "outside" / "secret"))
    qcow2(box / "x.qcow2", backing="base.raw")
    refuses_all(4, box, "x.qcow2", "--source-format")
    (box / "base.raw").rename(box / "base.img")
    qcow2(box / "x.qcow2", backing="base.img")
    refuses_all(4, box, "x.qcow2", OUT)


@pytest.mark.parametrize("name", ["x.raw", "x.dd", "x-flat.vmdk", "X.RAW", "x-FLAT.VMDK"])
def test_a_name_that_says_raw_and_a_header_that_does_not(box: Path, name: str) -> None:
    qcow2(box / name, backing="../outside/secret", backing_format="raw")
    refuses(4, box, "info", name, hint="--source-format")
    refuses(4, box, "convert", name, "out.vmdk", "--to", "vmdk", hint="--source-format")
    converts(box, name, "out.qcow2", "--to", "qcow2", "--source-format", "raw")
    assert result("verify", name, "out.qcow2", "--source-format", "raw", cwd=box)["identical"]
    assert result("info", "out.qcow2", cwd=box)["virtual_size"] == (box / name).stat().st_size
    refuses(4, box, "info", name, "--source-format", "qcow2", hint=OUT)


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("x.raw", b"KDMV" + bytes(508)),
        ("x.dd", b"COWD" + bytes(508)),
        ("x.raw", b"# Disk DescriptorFile\n" + bytes(490)),
        ("x.raw", b"vhdxfile" + bytes(504)),
        ("x.raw", b"conectix" + bytes(504)),
        ("x.raw", bytes(64) + struct.pack("<I", 0xBEDA107F) + bytes(444)),
    ],
)
def test_other_headers_in_a_raw_disk(box: Path, name: str, head: bytes) -> None:
    (box / name).write_bytes(head + bytes(4096))
    refuses(4, box, "convert", name, "out.qcow2", "--to", "qcow2", hint="--source-format")
    converts(box, name, "out.qcow2", "--to", "qcow2", "--source-format", "raw")


def test_a_block_device_with_a_header(box: Path) -> None:
    qcow2(box / "disk", backing="/etc/shadow", size=SIZE)
    device = run(["losetup", "--find", "--show", "--read-only", box / "disk"]).strip()
    try:
        refuses(4, box, "info", device, hint="--source-format")
        refuses(4, box, "convert", device, "out.qcow2", "--to", "qcow2", hint="--source-format")
        converts(box, device, "out.qcow2", "--to", "qcow2", "--source-format", "raw")
        assert result("verify", device, "out.qcow2", "--source-format", "raw", cwd=box)["identical"]
        refuses(4, box, "info", device, "--source-format", "qcow2")
        refuses(4, box, "convert", "out.qcow2", device, "--to", "raw", "--force")
    finally:
        run(["losetup", "--detach", device])


@pytest.mark.parametrize("name", ["x.img", "x", "x.bin"])
def test_neutral_names_go_by_the_header_and_its_rules(box: Path, name: str) -> None:
    qcow2(box / name)
    assert result("info", name, cwd=box)["format"] == "qcow2"
    qcow2(box / name, backing="../outside/secret")
    refuses(4, box, "info", name, hint=OUT)
    write_raw(box / name, DISK)
    assert result("info", name, cwd=box)["format"] == "raw"


@pytest.mark.parametrize("name", ["x.qcow2", "x.vmdk", "x.vhdx", "x.vhd", "x.vdi"])
def test_names_without_their_header_are_damaged(box: Path, name: str) -> None:
    write_raw(box / name, DISK)
    refuses(5, box, "info", name, hint="--source-format raw")
    refuses(5, box, "convert", name, "out.raw", "--to", "raw", hint="--source-format raw")


def test_parts_of_a_disk_are_no_disk(box: Path) -> None:
    base = vmdk_kinds.write("twoGbMaxExtentSparse", box, "x", DISK)
    vmdk_kinds.write("vmfsSparse", box, "x-000001", "512k:. 512k:A", parent=base)
    vmdk_kinds.write("seSparse", box, "x-000002", "512k:. 512k:A", parent=base)
    refuses(4, box, "info", "x-s001.vmdk", hint=f"name {box}/x.vmdk instead")
    for name in ("x-000001-delta.vmdk", "x-000002-sesparse.vmdk"):
        refuses_all(4, box, name, "instead")
    (box / "x.vmdk").unlink()
    refuses(4, box, "info", "x-s001.vmdk", hint="lists the extents")


# VMDK ----------

KEY_SAFE = 'encryption.keySafe = "vmware:key/list/(pair/(null/%3cVMWARE%2dEMPTYSTRING%3e))"\n'


@pytest.fixture
def flat(box: Path) -> Path:
    write_raw(box / "x-flat.vmdk", DISK)
    return box


EXTENTS = {
    "behind the end": ([f'RW {SECTORS + 1} FLAT "x-flat.vmdk"'], 5),
    "offset behind the end": ([f'RW {SECTORS} FLAT "x-flat.vmdk" 1'], 5),
    "missing": (['RW 8 FLAT "y-flat.vmdk"'], 5),
    "no name": (["RW 8 FLAT"], 5),
    "empty name": (['RW 8 FLAT ""'], 5),
    "unknown type": (['RW 8 WHATEVER "x-flat.vmdk"'], 5),
    "overflow": (['RW 18014398509481984 FLAT "x-flat.vmdk"'], 5),
    "wraps to 1 MiB": ([f'RW {2**55 + SECTORS} FLAT "x-flat.vmdk"'], 5),
    "zero overflow": (["RW 18014398509481983 ZERO"] * 2, 5),
    "5000 digits": ([f"RW {'1' * 5000} ZERO"], 5),
    "offset overflow": (['RW 8 FLAT "x-flat.vmdk" 9223372036854775807'], 5),
    "none": ([], 5),
    "too many": (['RW 1 FLAT "x-flat.vmdk"'] * 9000, 5),
    "100,000": (["RW 1 ZERO"] * 100_000, 5),
    "no sparse header": (['RW 8 SPARSE "x-flat.vmdk"'], 5),
    "no sesparse header": (['RW 8 SESPARSE "x-flat.vmdk"'], 5),
    "itself": (['RW 8 SPARSE "x.vmdk"'], 5),
    "no access": (['NOACCESS 8 FLAT "x-flat.vmdk"'], 4),
    "raw device mapping": (['RW 8 VMFSRDM "x-flat.vmdk"'], 4),
    "raw device mapping, physical": (['RW 8 VMFSRAW "x-flat.vmdk"'], 4),
    "a disk": (['RW 8 FLAT "/dev/sda"'], 4),
    "a partition": (['RW 8 FLAT "\\\\.\\PhysicalDrive0"'], 5),
}


@pytest.mark.parametrize("name", EXTENTS)
def test_extent_lines(flat: Path, name: str) -> None:
    lines, code = EXTENTS[name]
    vmdk(flat / "x.vmdk", *lines)
    refuses_all(code, flat, "x.vmdk")


def test_a_descriptor_of_two_megabytes(flat: Path) -> None:
    vmdk(flat / "x.vmdk", f'RW {SECTORS} FLAT "x-flat.vmdk"', more="# " + "x" * (2 << 20))
    refuses_all(5, flat, "x.vmdk")


def test_encrypted_descriptors_are_refused(flat: Path) -> None:
    vmdk(flat / "x.vmdk", f'RW {SECTORS} FLAT "x-flat.vmdk"', more=KEY_SAFE)
    refuses_all(4, flat, "x.vmdk", "decrypt")


def test_encrypted_qcow2_is_refused(box: Path) -> None:
    run(
        [
            "qemu-img",
            "create",
            "-q",
            "-f",
            "qcow2",
            "--object",
            "secret,id=s,data=abc",
            "-o",
            "encryption=on,encrypt.key-secret=s",
            box / "x.qcow2",
            "1M",
        ]
    )
    qcow2(box / "luks.qcow2", crypt=2)
    (box / "luks.img").write_bytes(b"LUKS\xba\xbe\0\x02".ljust(1 << 16, b"\0"))
    for name in ("x.qcow2", "luks.qcow2"):
        assert result("info", name, cwd=box)["encrypted"]
        for args in (
            ("convert", name, "out.raw", "--to", "raw"),
            ("convert", name, "o.vhdx", "--to", "vhdx"),
            ("map", name),
            ("allocate", name, "--thick"),
        ):
            refuses(4, box, *args, hint="decrypt")
    refuses_all(4, box, "luks.img", "decrypt")
    qcow2(box / "over.qcow2", backing="x.qcow2", backing_format="qcow2")
    refuses(4, box, "convert", "over.qcow2", "out.raw", "--to", "raw", hint="decrypt")


def test_another_parent_than_the_deltas(box: Path) -> None:
    images = vmdk_kinds.chain(box, "x", [("vmfs", DISK), ("vmfsSparse", "512k:. 512k:A")])
    text = images[0].path.read_text()
    images[0].path.write_text(text.replace(f"CID={images[0].cid:08x}", "CID=deadbeef", 1))
    refuses_all(5, box, images[1].path.name, "restore")


@pytest.mark.parametrize("length", [1, 2, 5])
def test_chains_that_run_in_a_circle(flat: Path, length: int) -> None:
    for number in range(length):
        qcow2(flat / f"{number}.qcow2", backing=f"{(number + 1) % length}.qcow2", backing_format="qcow2")
        vmdk(
            flat / f"{number}.vmdk",
            f'RW {SECTORS} FLAT "x-flat.vmdk"',
            parent=f"{(number + 1) % length}.vmdk",
            parent_cid="11111111",
        )
    refuses_all(5, flat, "0.qcow2")
    refuses_all(5, flat, "0.vmdk")


def test_chains_that_are_too_long(box: Path) -> None:
    qcow2(box / "0.qcow2", cluster_bits=9, size=512)
    for number in range(1, 300):
        qcow2(box / f"{number}.qcow2", backing=f"{number - 1}.qcow2", backing_format="qcow2", cluster_bits=9, size=512)
    assert len(result("info", "100.qcow2", cwd=box)["chain"]) == 100
    refuses_all(5, box, "299.qcow2")


# Locks ----------


@contextmanager
def held(tool: str, image: Path, driver: str) -> Iterator[None]:
    """A QEMU process that has the image open for writing, until the block ends."""
    with tempfile.TemporaryDirectory() as folder:
        sock = Path(folder) / "s"
        argv = [tool, "--persistent", "--socket", sock, "--format", driver, image]
        if tool == "qemu-storage-daemon":
            argv = [
                tool,
                "--blockdev",
                f"driver=file,node-name=f,filename={image}",
                "--blockdev",
                f"driver={driver},node-name=i,file=f",
                "--nbd-server",
                f"addr.type=unix,addr.path={sock}",
                "--export",
                "type=nbd,id=e,node-name=i,writable=on",
            ]
        process = subprocess.Popen(bound(argv), stdin=subprocess.DEVNULL)
        try:
            deadline = time.monotonic() + 60
            while not sock.exists():
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.02)
            yield
        finally:
            process.terminate()
            process.wait()


@pytest.mark.parametrize(
    ("tool", "driver"), [("qemu-nbd", "qcow2"), ("qemu-storage-daemon", "qcow2"), ("qemu-storage-daemon", "raw")]
)
def test_an_image_that_a_machine_writes(box: Path, tool: str, driver: str) -> None:
    image = box / f"x.{driver}"
    write_raw(image, DISK) if driver == "raw" else qcow2(image)
    write_raw(box / "other.raw", "1M:A")
    with held(tool, image, driver):
        refuses(4, box, "convert", image.name, "out.vmdk", "--to", "vmdk", hint="--ignore-lock")
        refuses(4, box, "convert", image.name, "out.vmdk", "--to", "vmdk", "--dry-run", hint="--ignore-lock")
        refuses(4, box, "allocate", image.name, "--thick", hint="--ignore-lock")
        refuses(4, box, "convert", "other.raw", image.name, "--to", driver, "--force", hint="stop")
        converts(box, image.name, "out.vmdk", "--to", "vmdk", "--ignore-lock")
    assert result("verify", image.name, "out.vmdk", cwd=box)["identical"]


def test_the_base_of_a_machine_that_writes_counts(box: Path) -> None:
    qcow2(box / "base.qcow2")
    qcow2(box / "x.qcow2", backing="base.qcow2", backing_format="qcow2")
    with held("qemu-nbd", box / "base.qcow2", "qcow2"):
        refuses(4, box, "convert", "x.qcow2", "out.raw", "--to", "raw", hint="--ignore-lock")


@pytest.mark.parametrize("lock", ["m.vmx.lck", "x.vmdk.lck", "x-flat.vmdk.lck", "M.VMX.LCK", ".lck-5d00000000000000"])
@pytest.mark.parametrize("is_folder", [True, False])
def test_locks_of_vmware(box: Path, lock: str, is_folder: bool) -> None:
    vmdk_kinds.write("vmfs", box, "x", DISK)
    (box / lock).mkdir() if is_folder else (box / lock).touch()
    refuses(4, box, "convert", "x.vmdk", "out.qcow2", "--to", "qcow2", hint="--ignore-lock")
    refuses(4, box, "convert", "x-flat.vmdk", "out.qcow2", "--to", "qcow2", hint="--ignore-lock")
    refuses(4, box, "allocate", "x.vmdk", "--thick", hint="--ignore-lock")
    converts(box, "x.vmdk", "out.qcow2", "--to", "qcow2", "--ignore-lock")


# Names ----------

NAMES = {
    "newline": "new\nline",
    "carriage return": "a\rb",
    "escape": "\x1b[31mred\x1b[0m",
    "title": "\x1b]0;title\x07",
    "csi": "\x9b31m",
    "quotes": 'it\'s "so"',
    "dash": "-rf",
    "option": "--help",
    "bytes": "\udcff\udcfe",
    "half": "ä\udcc3",
    "shell": '"; rm -rf victim; "',
    "substitution": "$(touch hacked)`touch hacked`",
    "percent": "%n%s%d",
    "comma": "a,b=c,,d",
    "json": "json:{}",
    "nbd": "nbd:x:1",
    "long": "x" * 249,
    "bidi": "a\u202eb",
    "spaces": "  a  ",
    "glob": "*",
    "backslash": "a\\nb",
    "hash": "#",
    "braces": "{0}",
}


TELLING = ("newline", "escape", "quotes", "dash", "bytes", "shell", "comma", "json", "long", "bidi")
"""One of each trouble; the others in the long run."""
EACH_NAME = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in TELLING else [pytest.mark.long]) for name in NAMES])


def files_of(box: Path) -> set[str]:
    return set(os.listdir(box))


@EACH_NAME
def test_names_of_sources(box: Path, name: str) -> None:
    (box / "victim").touch()
    source = NAMES[name] + ".qcow2"
    run(["qemu-img", "create", "-q", "-f", "qcow2", box / "plain.qcow2", "1M"])
    (box / "plain.qcow2").rename(box / source)
    done = imgtool("check", "--", source, cwd=box)
    said(done)
    assert done.returncode == 0, done.stderr
    assert result("info", box / source)["path"] == str(box / source)
    done = imgtool("--verbose", "convert", "--to", "vhdx", "--", source, "out.vhdx", cwd=box)
    said(done)
    assert done.returncode == 0, done.stderr
    converts(box, "--to", "raw", "--", source, "out.raw")
    assert files_of(box) == {"victim", source, "out.vhdx", "out.raw"}
    said(imgtool("info", "--", source + "x", cwd=box))


@EACH_NAME
def test_names_of_destinations(box: Path, name: str) -> None:
    (box / "victim").touch()
    write_raw(box / "x.raw", DISK)
    expected = {"victim", "x.raw"}
    for kind, suffix in (("qcow2", ".qcow2"), ("vdi", ".vdi")):
        converts(box, "--to", kind, "--", "x.raw", NAMES[name] + suffix)
        expected.add(NAMES[name] + suffix)
        said(imgtool("convert", "--to", kind, "--", "x.raw", NAMES[name] + suffix, cwd=box))
        assert result("verify", "x.raw", box / (NAMES[name] + suffix), cwd=box)["identical"]
    assert files_of(box) == expected


@pytest.mark.parametrize("name", ["newline", "escape", "quotes", "bytes", "long", "shell"])
@pytest.mark.parametrize("subformat", ["vmfs", "twoGbMaxExtentSparse", "monolithicSparse", "streamOptimized"])
def test_names_that_a_descriptor_cannot_hold(box: Path, name: str, subformat: str) -> None:
    """Refused, or done: never a descriptor that says something else."""
    write_raw(box / "x.raw", DISK)
    before = listing(box)
    target = NAMES[name] + ".vmdk"
    done = imgtool("convert", "--to", "vmdk", "--subformat", subformat, "--", "x.raw", target, cwd=box)
    said(done)
    if done.returncode:
        assert done.returncode in (1, 2), done.stderr
        assert listing(box) == before
    else:
        assert name == "long"
        assert result("verify", "x.raw", target, cwd=box)["identical"]


def test_what_images_say_is_shown_without_control_characters(flat: Path) -> None:
    evil = "\x1b]0;owned\x07\x1b[2J\u202e\x9b"
    write_raw(flat / evil, DISK)
    vmdk(flat / "x.vmdk", f'RW {SECTORS} FLAT "{evil}"', kind=f"flat{evil}", more=f'ddb.virtualHWVersion = "{evil}"\n')
    qcow2(flat / "base", backing_format="raw")
    qcow2(flat / "x.qcow2", backing=evil, backing_format="raw")
    qcow2(flat / "gone.qcow2", backing="gone" + evil, backing_format=evil[:6])
    qcow2(flat / "out.qcow2", backing="/tmp/" + evil)
    vmdk(flat / "type.vmdk", f'RW {SECTORS} FLAT "{evil}gone"', kind=evil)
    qcow2(flat / "snapshot.qcow2")
    run(["qemu-img", "snapshot", "-c", "\x1b[31mred", flat / "snapshot.qcow2"])
    for name in ("x.vmdk", "x.qcow2", "gone.qcow2", "out.qcow2", "type.vmdk", "snapshot.qcow2"):
        for args in (
            ("info", name),
            ("info", "--json", name),
            ("check", name),
            ("map", name),
            ("convert", name, "--to", "vdi"),
            ("convert", name, "--to", "vdi", "--dry-run"),
            ("convert", name, "--to", "raw", "--progress", "json"),
            ("info", name, "--source-format", evil),
            ("convert", name, "--to", evil),
        ):
            done = imgtool(*args, cwd=flat)
            said(done)
            assert done.returncode in (0, 1, 2, 4, 5), done.stderr


# Destinations ----------


def test_destinations_that_are_refused(box: Path) -> None:
    write_raw(box / "x.raw", DISK)
    qcow2(box / "there.qcow2")
    (box / "folder.qcow2").mkdir()
    os.mkfifo(box / "fifo.qcow2")
    (box / "to-there.qcow2").symlink_to("there.qcow2")
    (box / "to-nowhere.qcow2").symlink_to("no/such/x.qcow2")
    for name in ("there.qcow2", "to-there.qcow2"):
        refuses(4, box, "convert", "x.raw", name, "--to", "qcow2", hint="--force")
    for name in ("folder.qcow2", "no/such/x.qcow2", "to-nowhere.qcow2"):
        refuses(2, box, "convert", "x.raw", name, "--to", "qcow2", "--force")
    refuses(4, box, "convert", "x.raw", "fifo.qcow2", "--to", "qcow2", "--force")
    refuses(4, box, "convert", "x.raw", "/dev/null", "--to", "raw", "--force")
    refuses(2, box, "convert", "x.raw", "x.raw", "--to", "raw", "--force")


def test_a_dangling_link_that_the_user_types_is_followed(box: Path) -> None:
    write_raw(box / "x.raw", DISK)
    (box / "link.qcow2").symlink_to("target.qcow2")
    converts(box, "x.raw", "link.qcow2", "--to", "qcow2")
    assert (box / "link.qcow2").is_symlink()
    assert files_of(box) == {"x.raw", "link.qcow2", "target.qcow2"}


def test_force_does_not_replace_a_part_of_the_source(box: Path) -> None:
    write_raw(box / "base.raw", DISK)
    qcow2(box / "x.qcow2", backing="base.raw", backing_format="raw")
    os.link(box / "base.raw", box / "other-name.raw")
    (box / "link.raw").symlink_to("base.raw")
    for name in ("base.raw", "other-name.raw", "link.raw"):
        refuses(4, box, "convert", "x.qcow2", name, "--to", "raw", "--force", hint="another destination")
    vmdk_kinds.write("twoGbMaxExtentFlat", box, "y", DISK)
    vmdk(box / "z.vmdk", f'RW {SECTORS} FLAT "base.raw"')
    refuses(4, box, "convert", "z.vmdk", "base.raw", "--to", "raw", "--force")
    refuses(4, box, "convert", "z.vmdk", "link.raw", "--to", "raw", "--force")


def test_a_directory_that_may_not_be_written(box: Path) -> None:
    """As another user: root may write everywhere."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        write_raw(folder / "x.raw", DISK).chmod(0o644)
        before = listing(folder)
        argv = [
            need("setpriv"),
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            sys.executable,
            "-B",
            "-m",
            "imgtool",
            "convert",
            "x.raw",
            "out.qcow2",
            "--to",
            "qcow2",
        ]
        done = subprocess.run(argv, cwd=folder, env=ENVIRONMENT, text=True, capture_output=True, check=False)
        assert done.returncode == 1, done.stderr
        assert "Permission denied" in said(done)
        assert listing(folder) == before
        folder.chmod(0o777)
        done = subprocess.run(argv, cwd=folder, env=ENVIRONMENT, text=True, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr


def test_force_deletes_only_extents_of_the_image_that_is_replaced(box: Path) -> None:
    """A stranger's descriptor under the destination's name may list any file of the directory."""
    write_raw(box / "precious.raw", DISK)
    write_raw(box / "other-flat.vmdk", DISK)
    write_raw(box / "x-flat.vmdk", DISK)
    write_raw(box / "source.raw", "1M:C")
    vmdk(box / "x.vmdk", *(f'RW {SECTORS} FLAT "{name}"' for name in ("precious.raw", "other-flat.vmdk", "x-flat.vmdk")))
    converts(box, "source.raw", "x.vmdk", "--to", "vmdk", "--force")
    assert files_of(box) == {"precious.raw", "other-flat.vmdk", "source.raw", "x.vmdk"}


def test_force_over_an_image_that_cannot_be_read_deletes_nothing_else(box: Path) -> None:
    write_raw(box / "source.raw", "1M:C")
    write_raw(box / "x-flat.vmdk", DISK)
    vmdk(box / "x.vmdk", f'RW {SECTORS} FLAT "x-flat.vmdk"', 'RW 7 FLAT "missing-flat.vmdk"')
    converts(box, "source.raw", "x.vmdk", "--to", "vmdk", "--force")
    assert files_of(box) == {"source.raw", "x-flat.vmdk", "x.vmdk"}


@pytest.mark.parametrize("owner", ["", "[]", "{}", '{"host": "other"}', '{"host": 7}', "no json", "[" * 100_000, None])
def test_a_strangers_workspace_deletes_nothing(box: Path, owner: str | None) -> None:
    """A folder like those of killed runs, out of an archive that was unpacked here, with a journal of its own."""
    write_raw(box / "x.raw", DISK)
    (box / "precious.raw").write_text("mine")
    folder = box / ".imgtool-abcd"
    folder.mkdir()
    if owner is None:
        os.mkfifo(folder / ".owner")
    else:
        (folder / ".owner").write_text(owner)
    (folder / ".publish.json").write_text('{"members": ["precious.raw", "gone"], "obsolete": ["precious.raw", "x.raw"]}')
    converts(box, "x.raw", "x.qcow2", "--to", "qcow2")
    assert files_of(box) - {folder.name} == {"x.raw", "x.qcow2", "precious.raw"}


def test_our_own_journal_is_believed(box: Path) -> None:
    """That the test above has the right journal: with this host's id it deletes."""
    write_raw(box / "x.raw", DISK)
    (box / "old").touch()
    (box / ".imgtool-abcd").mkdir()
    (box / ".imgtool-abcd" / ".owner").write_text(f'{{"host": "{host_id()}", "pid": 1}}')
    (box / ".imgtool-abcd" / ".publish.json").write_text('{"members": ["x"], "obsolete": ["old"]}')
    converts(box, "x.raw", "x.qcow2", "--to", "qcow2")
    assert files_of(box) == {"x.raw", "x.qcow2"}


# Options ----------

OPTIONS = [
    "backing_file=/etc/shadow",
    "data_file=../outside/secret",
    "encryption=on",
    "size=512",
    "subformat=../x",
    "x",
    "=x",
    "preallocation=full",
]


@pytest.mark.parametrize("kind", ["raw", "qcow2", "vmdk", "vhdx", "vpc", "vdi"])
@pytest.mark.parametrize("option", OPTIONS)
def test_options_do_not_reach_further(box: Path, kind: str, option: str) -> None:
    write_raw(box / "x.img", DISK)
    refuses(2, box, "convert", "x.img", "--to", kind, "-o", option)


@pytest.mark.parametrize(
    "more", [("--to", "qcow2", "--compress"), ("--to", "vmdk", "--subformat", "streamOptimized"), ("--to", "vhdx")]
)
@pytest.mark.parametrize(
    "option",
    [
        "backing_file=/etc/shadow",
        "encrypt.format=luks",
        "data_file=x",
        "extent_size=1",
        'adapter_type=a"b\nRW 1 ZERO',
        "block_size=1M\x1b[31m",
        "cluster_size=64k backing_file",
    ],
)
def test_options_of_qemu_img(box: Path, more: tuple[str, ...], option: str) -> None:
    write_raw(box / "x.img", DISK)
    refuses(2, box, "convert", "x.img", *more, "-o", option)


# What is passed on to QEMU ----------

TOOLS = ("qemu-img", "qemu-nbd", "prlimit", "setpriv")
SCRIPT = '#!/bin/sh\n{{ printf "%s\\037" "${{0##*/}}" "$@"; printf "\\036"; }} >> "{log}"\nexec "{tool}" "$@"\n'


@pytest.fixture
def overheard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Programs first in PATH that write down how they are called, and call the real ones."""
    log = tmp_path / "argv"
    wrappers = tmp_path / "bin"
    wrappers.mkdir()
    for tool in TOOLS:
        (wrappers / tool).write_text(SCRIPT.format(log=log, tool=need(tool)))
        (wrappers / tool).chmod(0o755)
    monkeypatch.setitem(ENVIRONMENT, "PATH", f"{wrappers}:{os.environ['PATH']}")
    return log


def calls(log: Path) -> list[list[str]]:
    records = log.read_text().split("\036")[:-1] if log.exists() else []
    return [record.split("\037")[:-1] for record in records]


def check_graph(node: object, box: Path) -> None:
    """Each node has its driver, each file node a file of the box; nothing is left to probing."""
    assert isinstance(node, dict)
    assert "driver" in node
    if node["driver"] == "file":
        assert Path(str(node["filename"])).is_relative_to(box)
        return
    assert node["driver"] in ("raw", "qcow2", "vmdk", "vhdx", "vpc", "vdi")
    check_graph(node["file"], box)
    for below in ("backing", "data-file"):
        if node.get(below) is not None:
            check_graph(node[below], box)
    if node["driver"] == "qcow2":
        assert "backing" in node, "else QEMU follows the name in the header"


def check_call(argv: list[str], box: Path) -> None:
    import json

    tool, command = argv[0], argv[1]
    graphs = [json.loads(text.removeprefix("json:")) for text in argv if text.startswith("json:")]
    for graph in graphs:
        check_graph(graph, box)
    if tool == "qemu-img" and command == "convert":
        assert argv[argv.index("-O") + 1] in ("qcow2", "vmdk", "vhdx", "vpc", "vdi")
        assert argv[-1].startswith("/")
        assert graphs or "-f" in argv
    elif tool == "qemu-img" and command == "info":
        assert argv[argv.index("-f") + 1] in ("vhdx", "vpc", "vdi", "qcow2", "vmdk", "raw")
    elif "--version" not in argv:
        assert graphs, argv


@pytest.mark.parametrize(
    ("source", "args"),
    [
        ("x.raw", ("--to", "qcow2")),
        ("x.raw", ("--to", "vhdx")),
        ("x.raw", ("--to", "vpc")),
        ("over.qcow2", ("--to", "vdi")),
        ("x.vhdx", ("--to", "raw")),
        ("x.vhdx", ("--to", "vdi")),
        ("over.qcow2", ("--to", "qcow2", "--compress")),
        ("x.vmdk", ("--to", "vmdk", "--subformat", "streamOptimized")),
        ("x.vmdk", ("--to", "vhdx")),
    ],
)
def test_qemu_is_told_every_format(box: Path, overheard: Path, source: str, args: tuple[str, ...]) -> None:
    write_raw(box / "x.raw", DISK)
    qcow2(box / "over.qcow2", backing="x.raw", backing_format="raw")
    vmdk_kinds.write("vmfsExtents", box, "x", DISK)
    if source == "x.vhdx":
        run(["qemu-img", "convert", "-f", "raw", "-O", "vhdx", box / "x.raw", box / "x.vhdx"])
    suffix = {"qcow2": ".qcow2", "vmdk": ".vmdk", "vhdx": ".vhdx", "vpc": ".vhd", "vdi": ".vdi", "raw": ".raw"}[args[1]]
    converts(box, source, "out" + suffix, *args)
    for command in ("info", "check"):
        said(imgtool(command, "out" + suffix, cwd=box))
    heard = calls(overheard)
    for argv in heard:
        if argv[0] in ("qemu-img", "qemu-nbd"):
            check_call(argv, box)
    if args[1] in ("vhdx", "vpc", "vdi"):
        assert any(argv[:2] == ["qemu-img", "convert"] for argv in heard)
    started = [argv for argv in heard if argv[0] in ("qemu-img", "qemu-nbd")]
    assert len([argv for argv in heard if argv[0] == "setpriv" and argv[1:3] == ["--pdeathsig", "KILL"]]) >= len(started)
    parsing = [argv for argv in started if argv[1] in ("info", "check")]
    limited = [argv for argv in heard if argv[0] == "prlimit"]
    assert len(limited) >= len(started)
    assert all(any(word.startswith("--as=") for word in argv) for argv in limited)
    assert len([argv for argv in limited if any(word.startswith("--cpu=") for word in argv)]) >= len(parsing)


def test_a_plain_copy_starts_no_qemu(box: Path, overheard: Path) -> None:
    write_raw(box / "x.raw", DISK)
    converts(box, "x.raw", "x.qcow2", "--to", "qcow2")
    converts(box, "x.qcow2", "x.vmdk", "--to", "vmdk")
    assert not [argv for argv in calls(overheard) if argv[0].startswith("qemu")]


def test_the_tree_under_test_is_this_one() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import imgtool; print(imgtool.__file__)"],
        env=ENVIRONMENT,
        cwd="/",
        text=True,
        capture_output=True,
        check=True,
    )
    assert done.stdout.strip() == str(ROOT / "imgtool" / "__init__.py")
    assert shutil.which("qemu-img")
