"""The talk with the appliance, and what its checkers say, without one."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from imgtool.errors import ImgtoolError
from imgtool.guests import appliance, checks, trim, volumes
from imgtool.guests.appliance import Handle
from imgtool.progress import Stop
from tests import oracle

CRASH = "fstrim: appliance closed the connection unexpectedly.\nThis usually means … LIBGUESTFS_DEBUG=1 …"


def answers(**said: dict[str, object]) -> Callable[[bytes, float], bytes]:
    """What the child says of each call; of all others, that the appliance is not there."""
    gone = {"error": "umount_all: call launch before using this function", "errno": 0}
    return lambda question, _: json.dumps(said.get(json.loads(question)["call"], gone)).encode()


def test_what_is_tidied_up_does_not_hide_why_the_appliance_ended() -> None:
    devices = {"list_partitions": [], "list_devices": ["/dev/sda", "/dev/sdb"], "list_md_devices": [], "lvs": [],
               "vfs_type": "vfat", "mount_options": None}
    said = {name: {"result": result} for name, result in devices.items()}
    handle = Handle(answers(**said, fstrim={"error": CRASH, "errno": 0}))
    with pytest.raises(ImgtoolError, match="appliance ended in fstrim"):
        list(trim.trim(handle))


@pytest.mark.parametrize(("works", "remembered"), [((False, True), True), ((False, False), False), ((True, True), False)])
def test_kvm_is_to_blame_only_if_the_appliance_starts_without(works: tuple[bool, bool], remembered: bool,
                                                              monkeypatch: pytest.MonkeyPatch) -> None:
    hangs: list[bool] = []

    @contextmanager
    def started(_overlays: object, _sectors: object, settings: Sequence[str], *_: object) -> Iterator[Handle]:
        if not works["force_tcg" in settings]:
            raise appliance._NotStartedError("no space left on device")
        yield Handle(answers(shutdown={"result": None}))

    monkeypatch.setattr(appliance, "require_guestfs", lambda: None)
    monkeypatch.setattr(appliance, "kvm_state", lambda: (True, ""))
    monkeypatch.setattr(appliance, "remember_hang", lambda: hangs.append(True))
    monkeypatch.setattr(appliance, "_started", started)
    if any(works):
        with appliance.appliance([], stop=Stop()):
            pass
    else:
        with pytest.raises(ImgtoolError, match="no space left"), appliance.appliance([], stop=Stop()):
            pass
    assert bool(hangs) == remembered


@pytest.mark.parametrize(("detail", "names"), [
    ({"name": "web01:0", "uuid": "a:b:c:d"},
     ["/dev/md/0", "/dev/disk/by-id/md-name-web01:0", "/dev/md0", "/dev/disk/by-id/md-uuid-a:b:c:d"]),
    ({"name": "boot"}, ["/dev/md/boot", "/dev/disk/by-id/md-name-boot"]), ({"level": "raid1"}, [])])
def test_names_of_an_array(detail: dict[str, str], names: list[str]) -> None:
    assert list(volumes.array_names(detail)) == names


class Shell:
    """The checkers of this host, on files."""

    def run(self, command: str) -> tuple[int, str]:
        done = oracle.tool("sh", "-c", command, ok=(0, 1))
        return done.returncode, done.stdout.strip()


@pytest.mark.parametrize("bits", ["12", "16", "32"])
def test_an_esp_that_was_not_unmounted_is_sound(bits: str, tmp_path: Path) -> None:
    """That of each copy of a running Linux is so: the kernel sets the bit while it is mounted."""
    path = tmp_path / "esp"
    path.write_bytes(bytes({"12": 4, "16": 16, "32": 64}[bits] << 20))
    oracle.tool("mkfs.vfat", "-F", bits, path)
    shell, place = Shell(), 65 if bits == "32" else 37
    with path.open("r+b") as file:
        file.seek(place)
        file.write(b"\1")
    assert shell.run(f"fsck.vfat -n '{path}'")[0] == 1
    assert checks._errors(shell, str(path), "vfat") is None  # type: ignore[arg-type]
    with path.open("r+b") as file:
        start = int.from_bytes(path.read_bytes()[14:16], "little") * 512
        file.seek(start + 8 if bits == "32" else start + 4)
        file.write(b"\x77\x77")
    assert checks._errors(shell, str(path), "vfat")  # type: ignore[arg-type]
