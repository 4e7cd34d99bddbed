"""Whole machines on the command line: translated, converted both ways, packed, and what is refused."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest

from fixtures import machine_folder, notes_machine
from tests import oracle
from tests.program import ENVIRONMENT, ROOT, imgtool, result

DISKS = (("vm", 16 << 20), ("vm_1", 36 << 20))


@pytest.fixture
def vmx(tmp_path: Path) -> Path:
    return machine_folder.build(tmp_path / "esxi")


def same_disks(one: Path, fmt: str, other: Path, other_fmt: str) -> None:
    for name, size in DISKS:
        left, right = one / f"{name}.{fmt}", other / f"{name}.{other_fmt}"
        assert oracle.virtual_size(right, other_fmt) == size
        oracle.same(left, fmt, right, other_fmt)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def refused(code: int, words: str, *args: object) -> None:
    done = imgtool(*args)
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    assert re.search(words, done.stderr), done.stderr
    assert "Traceback" not in done.stderr


# -- convert MACHINE DIR


def test_the_new_addresses_that_are_told_are_those_that_it_has(vmx: Path, tmp_path: Path) -> None:
    """It is described twice: for the plan, whose problems are told, and for good."""
    done = imgtool("convert", vmx, tmp_path / "twin", "--to", "qcow2", "--name", "twin", "--new-identity")
    told = set(re.findall(r"52:54:00(?::[0-9a-f]{2}){3}", done.stderr))
    assert told
    assert told == set(re.findall(r'mac address="([^"]*)"', (tmp_path / "twin" / "twin.xml").read_text()))


@pytest.mark.parametrize("fmt", ["qcow2", "raw"])
def test_from_vmware_to_kvm(vmx: Path, tmp_path: Path, fmt: str) -> None:
    before = oracle.state(vmx.parent)
    told = result("convert", vmx, tmp_path / "kvm", "--to", fmt)
    assert names(tmp_path / "kvm") == {f"vm.{fmt}", f"vm_1.{fmt}", "vm.xml"}
    same_disks(vmx.parent, "vmdk", tmp_path / "kvm", fmt)
    xml = (tmp_path / "kvm" / "vm.xml").read_text()
    assert re.findall(r'source file="([^"]*)"', xml) == [f"{tmp_path}/kvm/vm.{fmt}", f"{tmp_path}/kvm/vm_1.{fmt}"]
    assert told["description"] == f"{tmp_path}/kvm/vm.xml"
    assert [disk["destination"] for disk in told["disks"]] == [f"{tmp_path}/kvm/vm.{fmt}", f"{tmp_path}/kvm/vm_1.{fmt}"]
    assert all(disk["verified"] for disk in told["disks"])
    assert told["verified"] is True
    assert oracle.state(vmx.parent) == before
    assert names(tmp_path) == {"esxi", "kvm"}


def test_and_back(vmx: Path, tmp_path: Path) -> None:
    result("convert", vmx, tmp_path / "kvm", "--to", "qcow2")
    (tmp_path / "back").mkdir()
    told = result("convert", tmp_path / "kvm" / "vm.xml", tmp_path / "back", "--to", "vmdk")
    assert [disk["subformat"] for disk in told["disks"]] == ["vmfs", "vmfs"]
    assert names(tmp_path / "back") == {"vm.vmx", "vm.vmdk", "vm-flat.vmdk", "vm_1.vmdk", "vm_1-flat.vmdk"}
    text = (tmp_path / "back" / "vm.vmx").read_text()
    assert re.findall(r'fileName = "(.*)"', text) == ["vm.vmdk", "vm_1.vmdk"]
    assert 'address = "00:50:56:95:72:98"' in text.replace("generatedAddress", "address")
    same_disks(vmx.parent, "vmdk", tmp_path / "back", "vmdk")


def test_through_an_ova(vmx: Path, tmp_path: Path) -> None:
    told = result("convert", vmx, tmp_path / "vm.ova", "--to", "vmdk")
    assert told["verified"] is True
    with tarfile.open(tmp_path / "vm.ova") as archive:
        assert archive.getnames() == ["vm.ovf", "vm.mf", "vm.vmdk", "vm_1.vmdk"]
        described = archive.extractfile("vm.ovf")
        assert described is not None
        text = described.read().decode()
    assert re.findall(r'ovf:capacity="(\d+)"', text) == [str(size) for _, size in DISKS]
    assert len(re.findall(r'ovf:populatedSize="\d+"', text)) == 2
    assert len(re.findall(r'ovf:size="\d+"', text)) == 2
    result("convert", tmp_path / "vm.ova", tmp_path / "kvm", "--to", "qcow2")
    same_disks(vmx.parent, "vmdk", tmp_path / "kvm", "qcow2")
    assert names(tmp_path) == {"esxi", "vm.ova", "kvm"}


def test_an_ova_that_was_damaged_on_its_way(vmx: Path, tmp_path: Path) -> None:
    result("convert", vmx, tmp_path / "vm.ova", "--to", "vmdk")
    with (tmp_path / "vm.ova").open("r+b") as file:
        file.seek(-200_000, os.SEEK_END)
        file.write(b"\0\1" * 50)
    refused(3, "manifest", "convert", tmp_path / "vm.ova", tmp_path / "kvm", "--to", "qcow2")
    assert names(tmp_path) == {"esxi", "vm.ova"}


def test_options_go_for_each_disk(vmx: Path, tmp_path: Path) -> None:
    result("convert", vmx, tmp_path / "kvm", "--to", "qcow2", "--thick")
    for name, size in DISKS:
        assert oracle.allocation([tmp_path / "kvm" / f"{name}.qcow2"], size) == "thick"
    done = result("convert", vmx, tmp_path / "packed", "--to", "qcow2", "--compress", "--no-verify")
    assert done["verified"] is False
    same_disks(vmx.parent, "vmdk", tmp_path / "packed", "qcow2")


def test_the_plan_lists_disks_and_losses(vmx: Path, tmp_path: Path) -> None:
    vmx.write_text(vmx.read_text() + 'pciPassthru0.present = "TRUE"\npciPassthru0.id = "0000:03:00.0"\n')
    before = oracle.state(vmx.parent)
    told = result("convert", vmx, tmp_path / "kvm", "--to", "qcow2", "--dry-run")
    (step,) = told["steps"]
    assert [note.split(":")[0] for note in step["notes"][:2]] == ["vm.vmdk → vm.qcow2", "vm_1.vmdk → vm_1.qcow2"]
    assert any("passthrough" in problem["what"] for problem in told["problems"])
    assert (names(tmp_path), oracle.state(vmx.parent)) == ({"esxi"}, before)
    refused(1, "--strict: 1 settings .*passthrough", "convert", vmx, tmp_path / "kvm", "--to", "qcow2", "--strict")
    assert names(tmp_path) == {"esxi"}


def test_the_newest_of_a_chain_is_converted(tmp_path: Path) -> None:
    from fixtures import vmdk_kinds

    folder = tmp_path / "esxi"
    folder.mkdir()
    top = vmdk_kinds.chain(folder, "vm", [("vmfs", "1M:A 3M:-"), ("vmfsSparse", "64k:. 64k:B 3968k:.")])[-1]
    (folder / "vm.vmx").write_text(machine_folder.vmx("vm", (top.path.name,)))
    result("convert", folder / "vm.vmx", tmp_path / "kvm", "--to", "qcow2")
    assert names(tmp_path / "kvm") == {"vm.qcow2", "vm.xml"}
    assert result("verify", top.path, tmp_path / "kvm" / "vm.qcow2")["identical"] is True


def test_equal_names_of_two_folders(vmx: Path, tmp_path: Path) -> None:
    other = machine_folder.build(tmp_path / "esxi" / "other")
    vmx.write_text(vmx.read_text() + f'scsi0:2.present = "TRUE"\nscsi0:2.fileName = "other/{other.stem}.vmdk"\n')
    result("convert", vmx, tmp_path / "kvm", "--to", "raw")
    assert names(tmp_path / "kvm") == {"vm.raw", "vm_1.raw", "vm_2.raw", "vm.xml"}
    assert len(set(re.findall(r'source file="([^"]*)"', (tmp_path / "kvm" / "vm.xml").read_text()))) == 3


def test_a_failure_leaves_nothing(vmx: Path, tmp_path: Path) -> None:
    (vmx.parent / "vm-flat.vmdk").unlink()
    refused(5, "vm-flat.vmdk", "convert", vmx, tmp_path / "kvm", "--to", "qcow2")
    assert names(tmp_path) == {"esxi"}


def test_a_kill_leaves_nothing_under_a_final_name(vmx: Path, tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "imgtool", "convert", vmx, tmp_path / "kvm", "--to", "qcow2", "--rate-limit", "300k"]
    with subprocess.Popen(argv, env=ENVIRONMENT, stderr=subprocess.DEVNULL) as process:
        while not list(tmp_path.glob(".imgtool-*/kvm/.imgtool-*")) and process.poll() is None:
            time.sleep(0.02)
        assert not (tmp_path / "kvm").exists()
        process.kill()
    result("convert", vmx, tmp_path / "kvm", "--to", "qcow2")
    assert names(tmp_path) == {"esxi", "kvm"}
    assert names(tmp_path / "kvm") == {"vm.qcow2", "vm_1.qcow2", "vm.xml"}


@pytest.mark.parametrize(("code", "words", "args"), [
    (2, "DIR is missing", ["{vmx}", "--to", "qcow2"]),
    (2, "no hypervisor", ["{vmx}", "{tmp}/d", "--to", "vhdx"]),
    (2, "streamOptimized", ["{vmx}", "{tmp}/x.ova", "--to", "qcow2"]),
    (2, "does not exist", ["{vmx}", "{tmp}/absent/d", "--to", "qcow2"]),
    (2, "does not exist", ["{tmp}/absent.vmx", "{tmp}/d", "--to", "qcow2"]),
    (2, "--rewrite", ["{vmx}", "{tmp}/d", "--to", "qcow2", "--rewrite", "{vmx}"]),
    (4, "not empty", ["{vmx}", "{tmp}", "--to", "qcow2"]),
    (4, "no directory", ["{vmx}", "{tmp}/file", "--to", "qcow2"]),
    (4, "exists", ["{vmx}", "{tmp}/file.ova", "--to", "vmdk"]),
])
def test_wrong_use(vmx: Path, tmp_path: Path, code: int, words: str, args: list[str]) -> None:
    for name in ("file", "file.ova"):
        (tmp_path / name).write_text("")
    refused(code, words, "convert", *(arg.format(vmx=vmx, tmp=tmp_path) for arg in args))
    assert names(tmp_path) == {"esxi", "file", "file.ova"}


def test_a_running_machine_is_refused(vmx: Path, tmp_path: Path) -> None:
    (vmx.parent / "vm.vmx.lck").mkdir()
    refused(4, "runs", "convert", vmx, tmp_path / "kvm", "--to", "qcow2")
    result("convert", vmx, tmp_path / "kvm", "--to", "qcow2", "--ignore-lock")


@pytest.mark.parametrize("name", ["../secret.vmdk", "{tmp}/secret.vmdk", "link.vmdk"])
def test_disks_outside_are_refused(vmx: Path, tmp_path: Path, name: str) -> None:
    machine_folder.build(tmp_path / "other")
    for path in (tmp_path / "other").glob("vm*.vmdk"):
        path.rename(tmp_path / path.name)
    (tmp_path / "vm.vmdk").rename(tmp_path / "secret.vmdk")
    os.symlink("../secret.vmdk", vmx.parent / "link.vmdk")
    vmx.write_text(machine_folder.vmx("vm", (name.format(tmp=tmp_path),)))
    refused(4, "--disk-root", "convert", vmx, tmp_path / "kvm", "--to", "qcow2")
    assert not (tmp_path / "kvm").exists()
    result("convert", vmx, tmp_path / "kvm", "--to", "qcow2", "--disk-root", tmp_path)
    assert "vm.xml" in names(tmp_path / "kvm")


@pytest.mark.parametrize("name", ["../../x", "a/b", 'a"; rm -rf', "..", "x" * 300, "\u202ename", ".hidden"])
def test_names_stay_in_the_folder(vmx: Path, tmp_path: Path, name: str) -> None:
    vmx.write_text(machine_folder.vmx(name.replace('"', "|22"), ("vm.vmdk",)))
    told = result("convert", vmx, tmp_path / "kvm", "--to", "qcow2")
    assert Path(told["description"]).parent == tmp_path / "kvm"
    assert names(tmp_path) == {"esxi", "kvm"}
    assert len(names(tmp_path / "kvm")) == 2


@pytest.mark.parametrize(("inner", "words"), [
    ("<source file='x.img'/><encryption format='luks'/>", "encrypted"),
    ("<source file='x.img'><slices><slice type='storage' offset='65536' size='65536'/></slices></source>", "a part of its file")])
def test_what_libvirt_alone_can_read_is_refused(tmp_path: Path, inner: str, words: str) -> None:
    """In the same world, too; a description that only is translated there keeps it."""
    (tmp_path / "x.img").write_bytes(bytes(1 << 20))
    (tmp_path / "m.xml").write_text(
        "<domain type='kvm'><name>m</name><memory>1048576</memory><os><type>hvm</type></os><devices>"
        f"<disk type='file' device='disk'><driver type='raw'/>{inner}<target dev='vda' bus='virtio'/></disk></devices></domain>")
    refused(4, words, "convert", tmp_path / "m.xml", tmp_path / "new", "--to", "qcow2")
    refused(4, words, "translate", tmp_path / "m.xml", tmp_path / "m.vmx")
    assert names(tmp_path) == {"x.img", "m.xml"}
    result("translate", tmp_path / "m.xml", tmp_path / "other.xml")


def test_the_machine_of_the_notes(tmp_path: Path) -> None:
    machine = notes_machine.build(tmp_path / "esxi")
    (tmp_path / "esxi" / f"{notes_machine.NAME}.vmx.lck").unlink()
    told = result("convert", machine.vmx, tmp_path / "kvm", "--to", "qcow2", "--map-network", "VMNet=br0")
    assert [disk["virtual_size"] for disk in told["disks"]] == [32 << 30, 384 << 30]
    xml = (tmp_path / "kvm" / f"{notes_machine.NAME}.xml").read_text()
    assert '<source bridge="br0"/>' in xml
    assert notes_machine.MAC in xml
    for disk, there in zip(machine.disks, told["disks"], strict=True):
        oracle.clean(Path(there["destination"]), "qcow2")
        part = disk.partitions[0]
        oracle.same_there(disk.flat, "raw", Path(there["destination"]), "qcow2", part.start, 64 << 20)


# -- one disk and its description


def test_rewrite(vmx: Path, tmp_path: Path) -> None:
    before = oracle.state(vmx.parent)
    told = result("convert", vmx.parent / "vm.vmdk", tmp_path / "x.qcow2", "--to", "qcow2", "--rewrite", vmx)
    assert told["description"] == f"{tmp_path}/vm.xml"
    xml = (tmp_path / "vm.xml").read_text()
    assert re.findall(r'<driver name="qemu" type="([^"]*)"', xml) == ["qcow2", "vmdk"]
    assert re.findall(r'source file="([^"]*)"', xml) == [f"{tmp_path}/x.qcow2", f"{vmx.parent}/vm_1.vmdk"]
    assert oracle.state(vmx.parent) == before
    there = names(tmp_path)
    plan = result("convert", vmx.parent / "vm_1.vmdk", tmp_path / "y.qcow2", "--to", "qcow2", "--rewrite", vmx, "--dry-run",
                  "--rewrite-to", tmp_path / "named.xml")
    assert [one["verb"] for one in plan["steps"]] == ["convert", "translate"]
    assert names(tmp_path) == there
    named = tmp_path / "named.xml"
    result("convert", vmx.parent / "vm_1.vmdk", tmp_path / "y.qcow2", "--to", "qcow2", "--rewrite", vmx, "--rewrite-to", named)
    assert f"{tmp_path}/y.qcow2" in named.read_text()


@pytest.mark.parametrize(("code", "words", "args"), [
    (2, "no hypervisor", ["--to", "vdi", "--rewrite", "{vmx}"]),
    (2, "is a .xml", ["--to", "qcow2", "--rewrite", "{vmx}", "--rewrite-to", "{tmp}/x.vmx"]),
    (2, "has no disk", ["--to", "qcow2", "--rewrite", "{tmp}/other.vmx"]),
    (2, "--rewrite", ["--to", "qcow2", "--rewrite-to", "{tmp}/x.xml"]),
    (2, "a disk image has none", ["--to", "qcow2", "--new-identity"]),
    (4, "taken.xml exists", ["--to", "qcow2", "--rewrite", "{vmx}", "--rewrite-to", "{tmp}/taken.xml"]),
])
def test_what_cannot_be_rewritten(vmx: Path, tmp_path: Path, code: int, words: str, args: list[str]) -> None:
    (tmp_path / "other.vmx").write_text(machine_folder.vmx("other", ("other.vmdk",)))
    (tmp_path / "taken.xml").write_text("mine")
    before = names(tmp_path) | names(vmx.parent)
    refused(code, words, "convert", vmx.parent / "vm.vmdk", *(arg.format(vmx=vmx, tmp=tmp_path) for arg in args))
    assert names(tmp_path) | names(vmx.parent) == before


# -- translate


def test_translate_both_ways(vmx: Path, tmp_path: Path) -> None:
    told = result("translate", vmx, tmp_path / "vm.xml")
    assert told.keys() == {"source", "destination", "format", "name", "problems"}
    assert (told["format"], told["name"], told["problems"]) == ("xml", "vm", [])
    assert f'file="{vmx.parent}/vm.vmdk"' in (tmp_path / "vm.xml").read_text()
    told = result("translate", tmp_path / "vm.xml", tmp_path / "esxi" / "new.vmx", "--explain")
    assert 'fileName = "vm.vmdk"' in (tmp_path / "esxi" / "new.vmx").read_text()
    keys = {"source_key", "source_value", "field", "target_key", "target_value", "why"}
    assert all(line.keys() == keys for line in told["fields"])
    memory = next(line for line in told["fields"] if line["field"] == "memory.size")
    assert (memory["source_key"], memory["target_key"], memory["target_value"]) == ("/domain/memory", "memSize", "1024")
    assert all(problem.keys() == {"what", "hint", "fatal"} for problem in told["problems"])


def test_explain_for_a_person(vmx: Path, tmp_path: Path) -> None:
    done = imgtool("translate", vmx, tmp_path / "vm.xml", "--explain")
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["SOURCE", "FIELD", "RESULT", "WHY"]
    (memory,) = [line for line in lines if " memory.size " in line]
    assert memory.startswith("memSize = 1024")
    assert "/domain/memory" in memory
    assert any(line.startswith("- ") and "chipset" in line for line in lines)


def test_each_reason_is_said_of_its_own_disk(vmx: Path, tmp_path: Path) -> None:
    """The disk that boots comes first: numbers there are others than here."""
    vmx.write_text(vmx.read_text() + 'ide1:0.present = "TRUE"\nide1:0.fileName = "ide.vmdk"\nide1:0.mode = "persistent"\n'
                   'bios.hddOrder = "ide1:0"\n')
    fields = result("translate", vmx, tmp_path / "vm.xml", "--explain")["fields"]
    why = {line["source_key"] or line["field"]: line["why"] for line in fields}
    assert why["ide1:0.mode"] == "writes stay, as usual"
    assert [why[f"disks[{number}].bus"] for number in range(3)] == ["as it was", "", ""]


def test_explain_in_a_narrow_terminal(vmx: Path, tmp_path: Path) -> None:
    words = ["env", "COLUMNS=80", sys.executable, "-m", "imgtool", "translate", str(vmx), str(tmp_path / "vm.xml"), "--explain"]
    done = subprocess.run(["script", "-qec", shlex.join(words), "/dev/null"], env=ENVIRONMENT, capture_output=True, text=True,
                          check=True)
    assert "\nmemory.size\n  source: memSize = 1024\n  result: /domain/memory = 1048576\n" in done.stdout.replace("\r", "")


def test_stdout_and_plan(vmx: Path, tmp_path: Path) -> None:
    done = imgtool("translate", vmx, "-", "--to", "xml")
    assert done.returncode == 0
    assert done.stdout.startswith("<domain")
    assert json.loads(imgtool("translate", vmx, "-", "--to", "xml", "--json").stdout)["text"] == done.stdout
    plan = result("translate", vmx, tmp_path / "vm.xml", "--dry-run")
    assert [step["verb"] for step in plan["steps"]] == ["translate"]
    assert names(tmp_path) == {"esxi"}


def test_nothing_is_overwritten(vmx: Path, tmp_path: Path) -> None:
    (tmp_path / "vm.xml").write_text("mine")
    refused(4, "exists", "translate", vmx, tmp_path / "vm.xml")
    refused(2, "source itself", "translate", vmx, vmx, "--force")
    assert (tmp_path / "vm.xml").read_text() == "mine"
    result("translate", vmx, tmp_path / "vm.xml", "--force")
    assert (tmp_path / "vm.xml").read_text().startswith("<domain")


def test_strict(vmx: Path, tmp_path: Path) -> None:
    result("translate", vmx, tmp_path / "vm.xml", "--strict")
    vmx.write_text(vmx.read_text() + 'RemoteDisplay.vnc.enabled = "TRUE"\nRemoteDisplay.vnc.password = "hunter2"\n')
    refused(1, "--strict: 1 settings", "translate", vmx, tmp_path / "other.xml", "--strict")
    done = imgtool("translate", vmx, tmp_path / "other.xml", "--json", "--explain")
    assert "password" in done.stdout
    assert "hunter2" not in done.stdout + done.stderr + (tmp_path / "other.xml").read_text()


def test_a_password_does_not_come_along_in_the_same_format(vmx: Path, tmp_path: Path) -> None:
    vmx.write_text(vmx.read_text() + 'RemoteDisplay.vnc.enabled = "TRUE"\nremotedisplay.vnc.PASSWORD = "hunter2"\n'
                   'RemoteDisplay.vnc.key = "BxYLBwUMCQ=="\n')
    told = result("translate", vmx, tmp_path / "other.vmx")
    assert "password" in told["problems"][0]["what"]
    new = (tmp_path / "other.vmx").read_text()
    assert "RemoteDisplay.vnc.enabled" in new
    assert not re.search("hunter2|BxYLBwUMCQ", new)


@pytest.mark.parametrize("name", ["networks.xml", "encrypted.xml", "disks.xml", "resources.xml", "devices.xml"])
def test_what_is_not_changed_is_no_loss(tmp_path: Path, name: str) -> None:
    old = ROOT / "fixtures" / "descriptions" / "domain_xml" / name
    told = result("translate", old, tmp_path / "new.xml", "--name", "other")
    assert [problem["what"] for problem in told["problems"] if "password" not in problem["what"]] == []
    text = re.sub(r" passwd='[^']*'", "", old.read_text())
    left, right = text.splitlines(), (tmp_path / "new.xml").read_text().splitlines()
    assert [new for one, new in zip(left, right, strict=True) if one != new] == ["  <name>other</name>"]


def test_a_dump_of_libvirts_esx_driver_becomes_a_machine_of_kvm(tmp_path: Path) -> None:
    old = ROOT / "fixtures" / "descriptions" / "domain_xml" / "libvirt-esx.xml"
    result("translate", old, tmp_path / "new.xml")
    assert "vmware" not in (tmp_path / "new.xml").read_text()


def test_rewriting_keeps_what_it_does_not_know(vmx: Path, tmp_path: Path) -> None:
    text = vmx.read_text() + "# by hand\nguestinfo.role = \"web\"\n"
    vmx.write_text(text)
    result("translate", vmx, tmp_path / "esxi" / "new.vmx", "--name", "clone")
    assert (tmp_path / "esxi" / "new.vmx").read_text() == text.replace('displayName = "vm"', 'displayName = "clone"')
    result("translate", vmx, tmp_path / "a.xml")
    old = (tmp_path / "a.xml").read_text().replace("<devices>", "<!-- mine --><devices>")
    (tmp_path / "a.xml").write_text(old)
    result("translate", vmx, tmp_path / "b.xml", "--onto", tmp_path / "a.xml", "--name", "other")
    assert (tmp_path / "b.xml").read_text() == old.replace("<name>vm</name>", "<name>other</name>")


@pytest.mark.parametrize(("code", "words", "args"), [
    (2, "OLD=NEW", ["{vmx}", "{tmp}/x.xml", "--map-network", "br0"]), (2, "OVA", ["{vmx}", "{tmp}/x.ova"]),
    (2, "does not say what is to be written", ["{vmx}", "{tmp}/x.json"]), (2, "one of", ["{vmx}", "-", "--to", "json"]),
    (2, "do not agree", ["{vmx}", "{tmp}/x.xml", "--to", "vmx"]), (5, "", ["{tmp}/bad.xml", "{tmp}/x.vmx"]),
    (5, "", ["{tmp}/bomb.xml", "{tmp}/x.vmx"]), (4, "encrypted", ["{tmp}/encrypted.vmx", "{tmp}/x.xml"]),
    (4, "ARM", ["{tmp}/arm.xml", "{tmp}/x.vmx"])])
def test_what_cannot_be_translated(vmx: Path, tmp_path: Path, code: int, words: str, args: list[str]) -> None:
    (tmp_path / "bad.xml").write_bytes(b"<domain" + b"\0" * 100)
    (tmp_path / "bomb.xml").write_text('<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]>'
                                       '<domain type="kvm"><name>&b;</name></domain>')
    (tmp_path / "encrypted.vmx").write_text('encryption.keySafe = "vmware:key/list/(pair/x)"\nencryption.data = "AAAA"\n')
    (tmp_path / "arm.xml").write_text('<domain type="kvm"><name>a</name><memory>1048576</memory><vcpu>1</vcpu><os>'
                                      '<type arch="aarch64" machine="virt">hvm</type></os></domain>')
    before = names(tmp_path)
    refused(code, words, "translate", *(arg.format(vmx=vmx, tmp=tmp_path) for arg in args))
    assert names(tmp_path) == before


def test_it_loads_little(vmx: Path, tmp_path: Path) -> None:
    """A whole process has half a second: nothing that only disks need is loaded."""
    from tests.unit.test_imports import loaded

    large = {"numpy", "tqdm", "zstandard", "isal", "deflate", "guestfs", "nbd", "rich"}
    assert not loaded("translate", vmx, tmp_path / "vm.xml") & large
