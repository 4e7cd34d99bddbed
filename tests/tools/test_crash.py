"""Killed, interrupted, out of space: the source is as it was, no half image under a final name, the next run puts it right."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from fixtures import patterns
from tests import mounts
from tests.mounts import call, need
from tests.program import ENVIRONMENT, ROOT, imgtool, result

K, M = 1 << 10, 1 << 20
SEED = 20240229
CONTENT = "1M:A 1M:- 2M:B 64k:- 512k:a " + "5G:- " + "3M:C 1M:0 2M:D 300M:- 2M:E 64k:-"
"""5.3 GiB, so that a split disk has three parts; some 11 MiB are data."""
SMALL = CONTENT.replace("5G:-", "1M:-").replace("300M:-", "1M:-")
"""For VHDX, of which QEMU does not tell what is data."""


@dataclass(frozen=True)
class Kind:
    """A kind of target, and a rate at which its conversion takes about a second."""

    name: str
    arguments: tuple[str, ...]
    content: str = CONTENT
    rate: str = "16M"


KINDS = {
    "qcow2": Kind("x.qcow2", ("--to", "qcow2")),
    "twoGb": Kind("x.vmdk", ("--to", "vmdk", "--subformat", "twoGbMaxExtentSparse")),
    "flat": Kind("x.vmdk", ("--to", "vmdk", "--subformat", "twoGbMaxExtentFlat", "--thin")),
    "stream": Kind("x.vmdk", ("--to", "vmdk", "--subformat", "streamOptimized")),
    "vhdx": Kind("x.vhdx", ("--to", "vhdx"), SMALL),
}


def fingerprint(path: Path) -> tuple[str, int, int, int]:
    """SHA-256 of where the data is and of the data itself; size, time of change, mode."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for piece in patterns.pieces_of_raw(path):
            digest.update(f"{piece.start} {piece.length} {piece.kind}".encode())
            file.seek(piece.start)
            digest.update(file.read(piece.length) if piece.is_data else b"")
    status = path.stat()
    return digest.hexdigest(), status.st_size, status.st_mtime_ns, status.st_mode


@dataclass(frozen=True)
class Job:
    """One conversion in a directory of its own."""

    directory: Path
    kind: Kind

    @property
    def source(self) -> Path:
        return self.directory / "source.raw"

    @property
    def target(self) -> Path:
        return self.directory / self.kind.name

    def argv(self, *more: str) -> list[str]:
        return ["convert", str(self.source), str(self.target), *self.kind.arguments, *more]

    def start(self) -> subprocess.Popen[str]:
        argv = [sys.executable, "-m", "imgtool", *self.argv("--rate-limit", self.kind.rate, "--progress", "json", "--force")]
        return subprocess.Popen(argv, env=ENVIRONMENT, start_new_session=True, text=True, stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE)

    def seconds(self) -> float:
        """How long it takes if nobody disturbs it."""
        began = time.monotonic()
        process = self.start()
        _, said = process.communicate(timeout=120)
        assert process.returncode == 0, said
        return time.monotonic() - began

    def names(self) -> set[str]:
        return set(os.listdir(self.directory)) - {self.source.name}

    def clear(self) -> None:
        for name in self.names():
            path = self.directory / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()


@pytest.fixture
def job(request: pytest.FixtureRequest, tmp_path: Path) -> Job:
    need("qemu-img")
    one = Job(tmp_path, KINDS[request.param])
    patterns.write_raw(one.source, one.kind.content)
    return one


def processes_of(directory: Path) -> list[str]:
    """Command lines of the processes that work in a directory."""
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            line = (entry / "cmdline").read_bytes() if entry.name.isdecimal() else b""
            if os.fsencode(directory) in line and int(entry.name) != os.getpid():
                found.append(line.replace(b"\0", b" ").decode(errors="replace"))
    return found


def wait_until(true: Callable[[], object], what: str, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, what
        time.sleep(0.002)


def same(one: Path, other: Path) -> bool:
    """By qemu-img: what a guest reads."""
    done = subprocess.run(["qemu-img", "compare", str(one), str(other)], capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr
    return done.returncode == 0


def check_after(job: Job, before: object) -> None:
    """What must hold whenever it was stopped."""
    wait_until(lambda: not processes_of(job.directory), "a child lives on")
    assert fingerprint(job.source) == before
    if job.target.exists():
        assert same(job.source, job.target)


def check_next(job: Job, before: object) -> None:
    """The next run succeeds, and leaves nothing but its own files."""
    done = result(*job.argv("--force"))
    assert job.names() == {os.path.basename(path) for path in done["files"]}
    assert same(job.source, job.target)
    assert fingerprint(job.source) == before
    job.clear()


def moments(seconds: float, count: int, key: str) -> list[float]:
    """Random ones, spread over the whole."""
    rng = random.Random(f"{SEED} {key}")
    return [(number + rng.random()) * seconds / count for number in range(count)]


EACH = pytest.mark.parametrize("job", KINDS, indirect=True)


@EACH
def test_kill_9(job: Job) -> None:
    """Each second time the whole group, else only imgtool itself: what it started must die with it."""
    before = fingerprint(job.source)
    seconds = job.seconds()
    job.clear()
    unfinished = 0
    for number, moment in enumerate(moments(seconds, 4, job.kind.name)):
        process = job.start()
        time.sleep(moment)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL) if number % 2 else process.kill()
        process.communicate()
        unfinished += not job.target.exists()
        check_after(job, before)
        check_next(job, before)
    assert unfinished >= 2, "it was hardly ever hit at work"


def test_kill_9_takes_qemu_img_with_it(tmp_path: Path) -> None:
    """While qemu-img is certainly at work; and its folder is there."""
    job = Job(tmp_path, KINDS["vhdx"])
    patterns.write_raw(job.source, SMALL)
    process = job.start()
    wait_until(lambda: any("qemu-img convert" in line for line in processes_of(tmp_path)), "qemu-img did not start")
    assert any(name.startswith(".imgtool-") for name in job.names())
    process.kill()
    process.communicate()
    wait_until(lambda: not processes_of(tmp_path), "qemu-img lives on")
    assert not job.target.exists()
    check_next(job, fingerprint(job.source))


@pytest.mark.parametrize(("job", "signum", "code"), [
    *[(kind, signal.SIGINT, 130) for kind in KINDS], ("qcow2", signal.SIGTERM, 143), ("vhdx", signal.SIGTERM, 143),
    ("twoGb", signal.SIGHUP, 129)], indirect=["job"])
def test_a_signal(job: Job, signum: signal.Signals, code: int) -> None:
    """Ctrl-C goes to the whole group. Nothing is left at all, not even a folder; if it came too late, the image is whole."""
    before = fingerprint(job.source)
    seconds = job.seconds()
    job.clear()
    codes: list[int] = []
    planned = moments(seconds * 0.6, 2 if signum == signal.SIGINT else 1, f"{job.kind.name} {signum}")
    for moment in (*planned, *[0.0] * 5):
        if len(codes) >= len(planned) and code in codes:
            break  # the others are for a machine that is much quicker now than when the seconds were counted
        process = job.start()
        assert process.stderr is not None
        first = process.stderr.readline()
        time.sleep(moment)
        os.killpg(process.pid, signum)
        _, said = process.communicate(timeout=30)
        codes.append(process.returncode)
        assert "Traceback" not in said
        if process.returncode == 0:
            assert same(job.source, job.target)
            job.clear()
        assert json.loads(first)["what"] == "convert"
        assert process.returncode in (0, code), said
        assert process.returncode == 0 or "error: interrupted; nothing was left under a final name\n" in said
        check_after(job, before)
        assert job.names() == set()
    assert code in codes
    check_next(job, before)


AT_IMPORT = """
import os, signal, sys
class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == sys.argv[1]:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupt())
from imgtool.__main__ import main
main()
"""


@pytest.mark.parametrize("module", ["typer", "imgtool.formats", "imgtool.cli.images"])
def test_ctrl_c_before_it_has_begun_says_nothing(module: str) -> None:
    """While Python still loads it."""
    done = subprocess.run([sys.executable, "-c", AT_IMPORT, module], env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (-signal.SIGINT, "")


def test_nohup(tmp_path: Path) -> None:
    """Who ignores SIGHUP goes on ignoring it."""
    job = Job(tmp_path, KINDS["qcow2"])
    patterns.write_raw(job.source, CONTENT)
    argv = ["nohup", sys.executable, "-m", "imgtool", *job.argv("--rate-limit", "16M", "--progress", "json")]
    process = subprocess.Popen(argv, env=ENVIRONMENT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               text=True)
    assert process.stderr is not None
    while "convert" not in process.stderr.readline():
        pass
    process.send_signal(signal.SIGHUP)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 0, said
    assert same(job.source, job.target)


def test_a_reader_that_goes_away(tmp_path: Path) -> None:
    """`imgtool map --json x | head -1`: no word about it, and no success."""
    path = tmp_path / "x.raw"
    patterns.write_raw(path, "4k:A 4k:- " * 4000)
    writer = subprocess.Popen([sys.executable, "-m", "imgtool", "map", "--json", str(path)], env=ENVIRONMENT, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert writer.stdout is not None
    assert writer.stderr is not None
    assert writer.stdout.readline().startswith('{"virtual_size"')
    writer.stdout.close()
    said = writer.stderr.read()
    assert (writer.wait(60), said) == (128 + signal.SIGPIPE, "")


# --- killed at every single step of moving the finished files ------------------------------------------------------------

STEPS = """
import os, signal, sys
from imgtool import files

at, count = int(sys.argv.pop(1)), -1

def step():
    global count
    if count == at:
        os.kill(os.getpid(), signal.SIGKILL)
    count += count >= 0

def stepping(real):
    def call(*arguments, **named):
        step()
        return real(*arguments, **named)
    return call

real_publish, real_write = files.publish, files.Path.write_text

def publish(*arguments, **named):
    global count
    count = 0
    return real_publish(*arguments, **named)

def write_text(path, text, **named):
    for end in (0, len(text) // 2, len(text)):
        step()
        real_write(path, text[:end], **named)

files.publish, files.Path.write_text = publish, write_text
for module, names in ((files, ("sync", "rename")), (os, ("rename", "unlink", "rmdir"))):
    for name in names:
        setattr(module, name, stepping(getattr(module, name)))
from imgtool.cli.app import main
try:
    main()
finally:
    print("steps", count, file=sys.stderr)
"""
OLD, NEW = "1M:A 2G:- 64k:B", "512k:C 1M:- 1G:- 1M:D 1G:- 64k:-"
"""Two extents each of a disk that is split."""


def killed_at(step: int, job: Job) -> int | None:
    """Converts, killed before its n-th step; the number of steps if it came to its end."""
    done = subprocess.run([sys.executable, "-c", STEPS, str(step), *job.argv("--force")], cwd=ROOT, env=ENVIRONMENT,
                          capture_output=True, text=True, check=False)
    if done.returncode == -signal.SIGKILL:
        return None
    assert done.returncode == 0, done.stderr
    return int(done.stderr.split("steps ")[1])


@pytest.mark.parametrize(("old", "new"), [
    ("twoGb", "qcow2"), pytest.param("twoGb", "twoGb", marks=pytest.mark.long),
    pytest.param("flat", "flat", marks=pytest.mark.long),
    pytest.param(None, "twoGb", marks=pytest.mark.long)])
def test_killed_at_every_step_of_publishing(tmp_path: Path, old: str | None, new: str) -> None:
    """The final name has the old image or the new one, whole; without an old one: the new one or nothing."""
    old_raw = patterns.write_raw(tmp_path / "old.raw", OLD)
    (tmp_path / "template").mkdir()
    template = Job(tmp_path / "template", KINDS[new])
    patterns.write_raw(template.source, NEW)
    if old:
        name = "x.vmdk" if new != "qcow2" else "x.qcow2"
        result("convert", old_raw, template.target.with_name(name), *KINDS[old if new != "qcow2" else new].arguments)
    before = fingerprint(template.source)
    seen, step, steps = [], 0, None
    while steps is None:
        work = Job(tmp_path / "work", template.kind)
        call("cp", "-a", "--sparse=always", template.directory, work.directory)
        steps = killed_at(step, work)
        seen.append(_which(work, old_raw) if work.target.exists() else "nothing")
        assert fingerprint(work.source) == before
        check_next(work, before)
        shutil.rmtree(work.directory)
        step += 1
    first = "old" if old else "nothing"
    assert seen == [first] * seen.count(first) + ["new"] * seen.count("new")
    assert seen.count(first) >= 8
    assert seen.count("new") >= 4


def _which(job: Job, old: Path) -> str:
    """Which of the two is under the final name; it must be exactly one."""
    states = {"old": same(old, job.target), "new": same(job.source, job.target)}
    assert sorted(states.values()) == [False, True], f"the final name has neither: {states}"
    return "old" if states["old"] else "new"


# --- no space left ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 MiB."""
    yield from mounts.tmpfs(tmp_path / "small", 64 * M)


def no_space(small: Path, *arguments: object) -> str:
    """stderr of a conversion into a file system that is too small for it."""
    before = sorted(os.listdir(small))
    done = imgtool("convert", *arguments, "--progress", "json")
    assert done.returncode == 7, done.stderr
    assert "error: " in done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(os.listdir(small)) == before
    return done.stderr


TOO_LARGE = [(), ("--thick",), ("--eager",), ("--to", "raw"), ("--to", "vhdx"), ("--to", "vdi", "--thick"),
             ("--to", "vmdk", "--subformat", "vmfs", "--eager")]


@pytest.mark.parametrize("arguments", TOO_LARGE, ids=" ".join)
def test_no_space_is_seen_before_copying(tmp_path: Path, small: Path, arguments: tuple[str, ...]) -> None:
    source = patterns.write_raw(tmp_path / "source.raw", "80M:A 20M:-")
    before = fingerprint(source)
    to = arguments if "--to" in arguments else ("--to", "qcow2", *arguments)
    name = f"x.{to[to.index('--to') + 1]}"
    said = no_space(small, source, small / name, *to)
    assert '"what"' not in said
    assert fingerprint(source) == before


@pytest.mark.parametrize("arguments", [("--to", "vmdk", "--subformat", "streamOptimized"), ("--to", "qcow2", "--compress")],
                         ids=" ".join)
def test_no_space_for_what_does_not_compress(tmp_path: Path, small: Path, arguments: tuple[str, ...]) -> None:
    """Nobody knows before how large it will be: the copy meets the end of the space."""
    source = patterns.write_raw(tmp_path / "source.raw", "80M:A 20M:-")
    before = fingerprint(source)
    said = no_space(small, source, small / f"x.{arguments[1]}", *arguments)
    assert '"what": "convert"' in said
    assert fingerprint(source) == before


FILLED = [("--to", "qcow2"), ("--to", "raw"), ("--to", "vmdk"), ("--to", "vmdk", "--subformat", "twoGbMaxExtentFlat", "--thin"),
          ("--to", "qcow2", "--detect-zeroes"), ("--to", "vhdx"), ("--to", "vdi")]


@pytest.mark.parametrize("arguments", FILLED, ids=" ".join)
def test_somebody_fills_the_disk_during_the_copy(tmp_path: Path, small: Path, arguments: tuple[str, ...]) -> None:
    filled(tmp_path, small, arguments)


@pytest.mark.parametrize("arguments", [("--to", "raw"), ("--to", "qcow2", "--detect-zeroes")], ids=" ".join)
def test_somebody_fills_the_disk_past_the_page_cache(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """Ranges long enough to be written directly, which a file system in memory has no way for."""
    for small in mounts.ext4(tmp_path / "small", 64 * M):
        (small / "lost+found").rmdir()
        filled(tmp_path, small, arguments)


def filled(tmp_path: Path, small: Path, arguments: tuple[str, ...]) -> None:
    source = patterns.write_raw(tmp_path / "source.raw", "30M:A 20M:-")
    before = fingerprint(source)
    argv = ["convert", str(source), str(small / f"x.{arguments[1]}"), *arguments, "--rate-limit", "20M", "--progress", "json"]
    process = subprocess.Popen([sys.executable, "-m", "imgtool", *argv], env=ENVIRONMENT, text=True, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE)
    wait_until(lambda: any(path.stat().st_size for path in small.glob(".imgtool-*/x*")), "nothing was written")
    fill(small)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 7, said
    assert "Traceback" not in said
    assert os.listdir(small) == ["filler"]
    assert fingerprint(source) == before
    (small / "filler").unlink()
    done = result(*argv[:-4])
    assert done["verified"] is True
    assert {os.path.basename(path) for path in done["files"]} == set(os.listdir(small))


def fill(directory: Path) -> None:
    """Until there is no space at all."""
    with (directory / "filler").open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))


def test_no_space_for_an_empty_disk(tmp_path: Path, small: Path) -> None:
    """It has no data, so nothing is missing until the first byte is to be written."""
    source = patterns.write_raw(tmp_path / "source.raw", "20M:-")
    fill(small)
    no_space(small, source, small / "x.qcow2", "--to", "qcow2")
