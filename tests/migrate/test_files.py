"""migrate between files: the pipeline by itself, without another machine."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from imgtool.endpoints.uri import parse
from imgtool.files import put
from imgtool.model.migration import MigrateRequest
from imgtool.steps.migrate import work
from imgtool.steps.migrate.work import Work
from tests.migrate.machines import MIB, left_behind, raw_disk, same, vmx
from tests.program import ENVIRONMENT, ROOT, imgtool, result

MAP = ("--map-network", "VM Network=br0")


def work_left(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "state" / "work").glob("*"))


@pytest.mark.parametrize(("options", "form"), [((), "qcow2"), (("--format", "raw"), "raw"), (("--thick",), "qcow2")])
def test_into_a_folder(tmp_path: Path, options: tuple[str, ...], form: str) -> None:
    source, target = vmx(tmp_path / "in"), tmp_path / "out"
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "in").iterdir()}
    said = result("migrate", "--from", source, "--to", target, *MAP, "--no-adapt", *options)
    suffix = {"qcow2": "qcow2", "raw": "raw"}[form]
    assert sorted(os.listdir(target)) == [f"web01-0.{suffix}", f"web01-1.{suffix}", "web01.xml"]
    for number in range(2):
        same(tmp_path / "in" / f"{number}.raw", target / f"web01-{number}.{suffix}", form)
    allocated = os.stat(target / f"web01-1.{suffix}").st_blocks * 512
    assert allocated >= 100 * MIB if options == ("--thick",) else allocated < 20 * MIB
    assert said["machine"] == "web01"
    assert said["verified"]
    assert [disk["virtual_size"] for disk in said["disks"]] == [64 * MIB, 100 * MIB]
    text = (target / "web01.xml").read_text()
    assert f'file="{target}/web01-0.{suffix}"' in text
    assert "<name>web01</name>" in text
    assert "564d1122-3344-5566-7788-99aabbccddee" in text
    assert before == {path.name: path.stat().st_mtime_ns for path in (tmp_path / "in").iterdir()}
    assert work_left(tmp_path) == []


def test_the_plan(tmp_path: Path) -> None:
    source = vmx(tmp_path / "in")
    plan = result("migrate", "web01", "--from", source, "--to", tmp_path / "out", "--name", "web02", *MAP, "--dry-run")
    assert plan["machine"] == "web02"
    assert [step["verb"] for step in plan["steps"]] == ["copy", "copy", "adapt", "define"]
    assert all(set(step) >= {"id", "verb", "summary", "bytes", "estimate_seconds"} for step in plan["steps"])
    assert plan["steps"][0]["bytes"] >= 9 * MIB
    assert plan["steps"][0]["estimate_seconds"] > 0
    assert all(set(one) == {"what", "hint", "fatal"} for one in plan["problems"])
    assert not (tmp_path / "out").exists()
    assert work_left(tmp_path) == []
    again = result("migrate", "web01", "--from", source, "--to", tmp_path / "out", "--name", "web02", *MAP, "--dry-run")
    assert [one["id"] for one in again["steps"]] == [one["id"] for one in plan["steps"]]


def test_a_fatal_finding_copies_nothing(tmp_path: Path) -> None:
    source = vmx(tmp_path / "in")
    text = source.read_text().replace('scsi0:1.fileName', 'scsi0:1.sharing = "multi-writer"\nscsi0:1.fileName')
    source.write_text(text)
    for options in ((), ("--dry-run",)):
        done = imgtool("migrate", "--from", source, "--to", tmp_path / "out", *MAP, "--no-adapt", "--json", *options)
        assert done.returncode == 4, done.stderr
        assert "[source.disk.shared]" in done.stderr
        assert not (tmp_path / "out").exists()
        if options:
            assert any(one["fatal"] for one in json.loads(done.stdout)["problems"])


@pytest.mark.parametrize(("arguments", "words", "code"), [
    (("web01",), "--from is missing", 2), (("--from", "x.vmx", "--to", "{out}"), "does not exist", 2),
    (("web02", "--from", "{in}/web01.vmx", "--to", "{out}"), "describes 'web01', not 'web02'", 2),
    (("--from", "{in}/web01.vmx", "--to", "{in}"), "is not empty", 4),
    (("--from", "{in}/web01.vmx", "--to", "{out}", "--format", "vhdx"), "takes qcow2, raw", 2),
    (("--from", "{in}/web01.vmx", "--to", "{in}/web01.vmx/x"), "is no folder", 2),
    (("--from", "{in}/web01.vmx", "--to", "metal:///dev/sda"), "cannot be used here", 2),
    (("--from", "{in}/web01.vmx", "--to", "{out}", "--start"), "no host that runs machines", 2),
    (("--from", "{in}/web01.vmx", "--to", "{out}.ova", "--start"), "no host that runs machines", 2),
    (("--from", "esx://root:secret@h/", "--to", "{out}"), "a password must not stand in an address", 2),
    (("--from", "{in}/web01.vmx", "--to", "{out}", "--thumbprint", "side=AA"), "from=HEX, to=HEX", 2),
])
def test_wrong_use(tmp_path: Path, arguments: tuple[str, ...], words: str, code: int) -> None:
    vmx(tmp_path / "in", disks=(MIB,))
    given = [one.format(**{"in": tmp_path / "in", "out": tmp_path / "out"}) for one in arguments]
    done = imgtool("migrate", *given)
    assert (done.returncode, words in done.stderr) == (code, True), done.stderr
    assert "secret" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_running_machine_is_refused(tmp_path: Path) -> None:
    source = vmx(tmp_path / "in", disks=(MIB,))
    (tmp_path / "in" / "web01.vmx.lck").mkdir()
    assert imgtool("migrate", "--from", source, "--to", tmp_path / "out", *MAP).returncode == 4
    assert imgtool("migrate", "--from", source, "--to", tmp_path / "out", *MAP, "--no-adapt", "--ignore-lock").returncode == 0


def start(source: Path, target: Path, *options: object) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-m", "imgtool", "migrate", "--from", source, "--to", target, *MAP, "--no-adapt",
                             "--json", *map(str, options)], env=ENVIRONMENT, cwd=ROOT, text=True, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE)


def wait_for(path: Path, size: int) -> None:
    """Until so many bytes of a copy are on the disk."""
    until = time.monotonic() + 60
    while not path.exists() or path.stat().st_blocks * 512 < size:
        assert time.monotonic() < until
        time.sleep(0.02)


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM])
def test_goes_on_after_a_stop(tmp_path: Path, signum: int) -> None:
    source, target = vmx(tmp_path / "in", disks=(64 * MIB,)), tmp_path / "out"
    data = raw_disk(tmp_path / "in" / "0.raw", 64 * MIB).stat().st_blocks * 512
    subprocess.run(["qemu-img", "convert", "-O", "vmdk", tmp_path / "in" / "0.raw", tmp_path / "in" / "d0.vmdk"], check=True)
    for count in range(1, 4):
        child = start(source, target, "--rate-limit", "6M", "--no-clone")
        wait_for(target / "web01.qcow2.imgtool-partial", count * 2 * MIB)
        child.send_signal(signum)
        _, told = child.communicate()
        assert child.returncode in ((143, -15) if signum == signal.SIGTERM else (-9,))  # -15: before it had begun
        assert ("hint: the same command goes on where it stopped" in told) == (child.returncode == 143), told
        assert not (target / "web01.xml").exists()
        assert not (target / "web01.qcow2").exists()
    done, _ = start(source, target, "--no-clone").communicate()
    said = json.loads(done)
    if signum == signal.SIGTERM:
        assert 0 < said["disks"][0]["bytes_read"] <= data - 3 * MIB
    same(tmp_path / "in" / "0.raw", target / "web01.qcow2", "qcow2")
    assert sorted(os.listdir(target)) == ["web01.qcow2", "web01.xml"]
    assert work_left(tmp_path) == []


def test_discard_partial(tmp_path: Path) -> None:
    source, target = vmx(tmp_path / "in", disks=(64 * MIB,)), tmp_path / "out"
    child = start(source, target, "--rate-limit", "6M", "--no-clone")
    wait_for(target / "web01.qcow2.imgtool-partial", 2 * MIB)
    child.kill()
    child.communicate()
    assert left_behind(target) == ["web01.qcow2.imgtool-partial", "web01.qcow2.imgtool-partial.map"]
    (target / "web01.qcow2.imgtool-partial.imgtool-adapt").mkdir()  # changes that were to be written into the copy
    said = result("migrate", "--from", source, "--to", target, *MAP, "--discard-partial")
    assert str(target / "web01.qcow2.imgtool-partial") in said["removed"]
    assert os.listdir(target) == []
    assert work_left(tmp_path) == []


def test_a_source_that_changed_meanwhile_is_noticed(tmp_path: Path) -> None:
    source, target = vmx(tmp_path / "in", disks=(64 * MIB,)), tmp_path / "out"
    child = start(source, target, "--rate-limit", "6M", "--no-clone")
    wait_for(target / "web01.qcow2.imgtool-partial", 2 * MIB)
    child.kill()
    child.communicate()
    os.utime(tmp_path / "in" / "d0.vmdk")
    done = imgtool("migrate", "--from", source, "--to", target, *MAP, "--no-adapt")
    assert done.returncode == 4
    assert "source has changed" in done.stderr
    assert "--discard-partial" in done.stderr


def test_two_at_once_are_refused(tmp_path: Path) -> None:
    source, target = vmx(tmp_path / "in", disks=(64 * MIB,)), tmp_path / "out"
    first = start(source, target, "--rate-limit", "400K", "--no-clone")
    wait_for(target / "web01.qcow2.imgtool-partial", MIB)
    done = imgtool("migrate", "--from", source, "--to", target, *MAP, "--no-adapt")
    first.kill()
    first.communicate()
    assert done.returncode == 4
    assert "another imgtool is working on it" in done.stderr


def test_killed_at_the_very_end_goes_on(tmp_path: Path) -> None:
    """Between the publishing of two disks, before the last marks go, and after that."""
    source, target = vmx(tmp_path / "in"), tmp_path / "out"
    child = """
import os, sys
from imgtool.copying import receive
from imgtool.steps.migrate.work import Work
where = Work if sys.argv[1] == "clear" else receive
real, last, count = getattr(where, sys.argv[1]), int(sys.argv[2]), [0]
def dies(one):
    count[0] += 1
    if count[0] == last:
        os.kill(os.getpid(), 9)
    return real(one)
setattr(where, sys.argv[1], dies)
sys.argv = ["imgtool", *sys.argv[3:]]
from imgtool.cli.app import main
main()
"""
    arguments = ["migrate", "--from", str(source), "--to", str(target), *MAP, "--no-adapt"]
    for name, number in (("settle", 1), ("settle", 2), ("publish", 1), ("publish", 2), ("forget", 1), ("forget", 2),
                         ("clear", 1)):
        done = subprocess.run([sys.executable, "-c", child, name, str(number), *arguments], env=ENVIRONMENT, cwd=ROOT,
                              check=False, capture_output=True, text=True)
        assert done.returncode == -signal.SIGKILL, (name, number, done.stderr)
    assert result(*arguments)["machine"] == "web01"
    for number in range(2):
        same(tmp_path / "in" / f"{number}.raw", target / f"web01-{number}.qcow2", "qcow2")
    assert sorted(os.listdir(target)) == ["web01-0.qcow2", "web01-1.qcow2", "web01.xml"]


@pytest.mark.parametrize(("where", "name", "number", "left"), [
    ("receive", "publish", 2, []), ("Folder", "define", 1, []), ("Folder", "rename", 1, []),
    ("Work", "set_finished", 1, ["web01-0.qcow2", "web01-1.qcow2", "web01.xml"]),
    ("Work", "clear", 1, ["web01-0.qcow2", "web01-1.qcow2", "web01.xml"])])
def test_discard_partial_after_the_copy(tmp_path: Path, where: str, name: str, number: int, left: list[str]) -> None:
    """Disks that have their names go, too, and a description that has none; not those of a machine that is whole."""
    source, target = vmx(tmp_path / "in", disks=(MIB, MIB)), tmp_path / "out"
    child = """
import os, sys
from imgtool.copying import receive
from imgtool.endpoints.files import Folder
from imgtool.steps.migrate.work import Work
where, name, last = globals()[sys.argv[1]], sys.argv[2], int(sys.argv[3])
real, count = getattr(where, name), [0]
def dies(*given):
    count[0] += 1
    if count[0] == last:
        os.kill(os.getpid(), 9)
    return real(*given)
setattr(where, name, dies)
sys.argv = ["imgtool", *sys.argv[4:]]
from imgtool.cli.app import main
main()
"""
    arguments = ["migrate", "--from", str(source), "--to", str(target), *MAP, "--no-adapt"]
    done = subprocess.run([sys.executable, "-c", child, where, name, str(number), *arguments], env=ENVIRONMENT, cwd=ROOT,
                          check=False, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    result(*arguments, "--discard-partial")
    assert sorted(os.listdir(target)) == left
    assert work_left(tmp_path) == []


def test_an_identity_is_drawn_once(tmp_path: Path) -> None:
    source = vmx(tmp_path / "in", disks=(MIB,))
    done = imgtool("migrate", "--from", source, "--to", tmp_path / "out", *MAP, "--no-adapt", "--new-identity")
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "out" / "web01.xml").read_text()
    assert "564d1122" not in text
    assert "52:54:00" in text


DIES = """
import os, sys
from imgtool.endpoints.files import Folder
Folder.define = lambda *_: os.kill(os.getpid(), 9)
sys.argv = ["imgtool", *sys.argv[1:]]
from imgtool.cli.app import main
main()
"""


@pytest.mark.parametrize(("before", "after", "card"), [((), ("--new-identity",), False), (("--new-identity",), (), False),
                                                       ((), (), True)])
def test_an_identity_is_of_what_is_asked_and_there(tmp_path: Path, before: tuple[str, ...], after: tuple[str, ...],
                                                   card: bool) -> None:
    """A stopped run's does not hold for a clone, nor for a machine that has another card meanwhile."""
    source = vmx(tmp_path / "in", disks=(MIB,))
    arguments = ["migrate", "--from", str(source), "--to", str(tmp_path / "out"), *MAP, "--no-adapt"]
    done = subprocess.run([sys.executable, "-c", DIES, *arguments, *before], env=ENVIRONMENT, cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL
    if card:
        source.write_text(source.read_text() + """ethernet7.present = "TRUE"
ethernet7.networkName = "VM Network"
ethernet7.addressType = "static"
ethernet7.address = "00:50:56:01:02:99"
""")
    result(*arguments, *after)
    text = (tmp_path / "out" / "web01.xml").read_text()
    assert ("564d1122-3344" in text) == ("--new-identity" not in after)
    assert ("00:50:56:" in text) == ("--new-identity" not in after)
    assert ("00:50:56:01:02:99" in text) == card


def test_what_says_that_all_is_done_goes_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone: list[str] = []
    monkeypatch.setattr(os, "listdir", lambda _: ["finished.json", "0.base.qcow2.imgtool-partial", "lock", "identity.json"])
    monkeypatch.setattr(work, "_remove", lambda path: gone.append(path.name))
    Work(tmp_path).clear()
    assert gone[-1] == "finished.json"
    assert sorted(gone) == ["0.base.qcow2.imgtool-partial", "finished.json", "identity.json"]


def test_what_is_staged_is_not_taken_away_by_others(tmp_path: Path) -> None:
    """Neither while a migration has it, nor after that was stopped, however long ago."""
    request = MigrateRequest(name="web01", source=parse("qemu:///system"), target=parse("esx://h/"), staging=str(tmp_path))
    with work.held(request, work.job_of(request)) as folder:
        staged = Path(folder.file("0.base.qcow2.imgtool-partial"))
        staged.write_bytes(b"gigabytes")
        os.utime(folder.path, (1, 1))
        put(str(tmp_path / "other"), b"", replace=True)
    put(str(tmp_path / "other"), b"", replace=True)
    assert staged.read_bytes() == b"gigabytes"


def test_what_was_removed_since_is_not_done(tmp_path: Path) -> None:
    """A run that was killed when it cleared up has left a note of what it had done."""
    source, target = vmx(tmp_path / "in", disks=(MIB,)), tmp_path / "out"
    arguments = ["migrate", "--from", str(source), "--to", str(target), *MAP, "--no-adapt"]
    child = DIES.replace("imgtool.endpoints.files import Folder", "imgtool.steps.migrate.work import Work").replace(
        "Folder.define", "Work.clear")
    assert subprocess.run([sys.executable, "-c", child, *arguments], env=ENVIRONMENT, cwd=ROOT, check=False).returncode == -9
    shutil.rmtree(target)
    result(*arguments)
    same(tmp_path / "in" / "0.raw", target / "web01.qcow2", "qcow2")
    assert work_left(tmp_path) == []


INTERRUPTED = """
import os, sys
from imgtool.endpoints.in_place import InPlace
real = InPlace.read
def read(*given):
    os.kill(os.getpid(), 2)
    real(*given)
InPlace.read = read
sys.argv = ["imgtool", *sys.argv[1:]]
from imgtool.cli.app import main
main()
"""


def test_a_plan_can_be_interrupted(tmp_path: Path) -> None:
    """While it measures how fast the source is read."""
    source = vmx(tmp_path / "in", disks=(MIB,))
    arguments = ("migrate", "--from", source, "--to", tmp_path / "out", *MAP, "--dry-run")
    done = subprocess.run([sys.executable, "-c", INTERRUPTED, *arguments], env=ENVIRONMENT, cwd=ROOT, text=True,
                          capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (130, ""), done.stderr


def test_a_report_that_cannot_be_written(tmp_path: Path) -> None:
    """It is known before, or it is said, and the machine has moved all the same."""
    source = vmx(tmp_path / "in", disks=(MIB,))
    (tmp_path / "taken").mkdir()
    arguments = ("migrate", "--from", source, "--to", tmp_path / "out", *MAP, "--no-adapt", "--report")
    early = imgtool(*arguments, tmp_path / "none" / "page.html")
    assert (early.returncode, (tmp_path / "out").exists()) == (2, False)
    late = imgtool(*arguments, tmp_path / "taken")
    assert late.returncode == 0, late.stderr
    assert "no report was written" in late.stderr


def test_the_journal_and_the_page(tmp_path: Path) -> None:
    source = vmx(tmp_path / "in", name="web<01>", disks=(MIB,))
    page = tmp_path / "report.html"
    said = result("migrate", "--from", source, "--to", tmp_path / "out", *MAP, "--no-adapt", "--report", page)
    told = [json.loads(line) for line in (tmp_path / "state" / "jobs" / f"{said['job']}.jsonl").read_text().splitlines()]
    assert [one["event"] for one in told] == ["start", "looked", "begin", "end", "described", "begin", "end", "result", "done"]
    text = page.read_text()
    assert "web&lt;01&gt;" in text
    assert "<01>" not in text
    assert said["disks"][0]["checksum"] in text
    assert not re.search("src=|href=|<script|url[(]", text)


def test_jobs(tmp_path: Path) -> None:
    """While it runs, after it was killed, when it is done, and one that failed."""
    assert imgtool("jobs").stdout == "no jobs\n"
    source, target = vmx(tmp_path / "in", disks=(64 * MIB,)), tmp_path / "out"
    child = start(source, target, "--rate-limit", "1M", "--no-clone")
    wait_for(target / "web01.qcow2.imgtool-partial", MIB)
    (job,) = result("jobs", "list")["jobs"]
    assert (job["state"], job["machine"], job["verb"]) == ("running", "web01", "migrate")
    (step,) = job["steps"]
    assert (step["verb"], step["of"], step["state"], step["bytes_read"]) == ("copy", "d0.vmdk", "running", None)
    (going,) = result("jobs", "show", job["id"])["going"]
    assert going["what"] == "copy web01.qcow2"
    assert MIB <= going["done"] < going["total"] < 64 * MIB, "what is no hole"
    assert 0 < going["rate"] < 16 * MIB
    assert going["remaining"] is not None
    child.kill()
    child.communicate()
    assert result("jobs", "show", job["id"])["state"] == "stopped"
    assert imgtool("migrate", "--from", source, "--to", target, *MAP, "--no-adapt").returncode == 0
    done = result("jobs", "show", job["id"])
    assert (done["state"], done["runs"]) == ("done", 2)
    assert [(one["verb"], one["state"]) for one in done["steps"]] == [("copy", "done"), ("define", "done")]
    assert "run 2 times" in imgtool("jobs", "show", job["id"]).stdout
    assert imgtool("migrate", "--from", source, "--to", target, *MAP).returncode == 4
    failed = result("jobs", "show", job["id"])
    assert failed["state"] == "failed"
    assert "is not empty" in failed["error"]
    assert "hint: name a new folder" in imgtool("jobs", "show", job["id"]).stdout
    assert len(imgtool("jobs", "logs", job["id"]).stdout.splitlines()) > 6
    assert imgtool("jobs", "show", "nothing").returncode == 2
    assert result("jobs", "list", "--state", "done")["jobs"] == []


def test_cancelled_by_its_journal(tmp_path: Path) -> None:
    """That process, and no other, gets SIGTERM; the same command then goes on, and imgtool says which that is."""
    source, target = vmx(tmp_path / "in", disks=(64 * MIB,)), tmp_path / "out"
    child = start(source, target, "--rate-limit", "1M", "--no-clone")
    wait_for(target / "web01.qcow2.imgtool-partial", MIB)
    assert imgtool("jobs", "cancel", "migrate-").returncode == 0
    child.communicate(timeout=60)
    assert child.returncode == 143
    (job,) = result("jobs")["jobs"]
    assert (job["state"], job["exit_code"], job["going"]) == ("stopped", 143, [])
    assert imgtool("jobs", "cancel", job["id"]).returncode == 4
    resumed = imgtool("jobs", "resume", job["id"])
    assert resumed.returncode == 2
    assert f"run it again: imgtool migrate web01 --from {source} --to {target} …" in resumed.stderr


def test_a_package_is_what_its_manifest_says(tmp_path: Path) -> None:
    source, ova, target = vmx(tmp_path / "in", disks=(8 * MIB,)), tmp_path / "web01.ova", tmp_path / "out"
    result("convert", source, ova, "--to", "vmdk")
    words = ("migrate", "--from", ova, "--to", target, "--map-network", "VM Network=br0", "--no-adapt")
    packed = bytearray(ova.read_bytes())
    at = packed.index(b".vmdk)= ") + 8
    packed[at:at + 8] = b"0" * 8
    ova.write_bytes(packed)
    done = imgtool(*words)
    assert done.returncode == 3, done.stderr
    assert "is not what the manifest says" in done.stderr
    assert not list(tmp_path.glob("out/*"))
    assert not result(*words, "--no-verify")["verified"]
