"""Machines found at a simulated ESXi, moved to a real libvirtd; where passwords come from, and where they do not go."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from fixtures.esxi import Datastore, Registered, Simulator, esxi
from fixtures.libvirtd import Libvirtd
from imgtool.errors import UsageError
from imgtool.model.endpoint import Found, Power
from imgtool.runs.runbook import load
from imgtool.runs.tasks import tasks_of
from imgtool.steps import migrate
from tests.esxi.machines import machine
from tests.libvirt_endpoint.conftest import daemon, pool
from tests.migrate.machines import MIB, same, vmx
from tests.migrate.test_near_libvirt import address
from tests.program import ENVIRONMENT, imgtool, result
from tests.runbooks.batches import audit, count

__all__ = ["daemon", "pool"]

BOOK = """
name: esx
endpoints:
  byenv: {uri: "%(uri)s", password: {env: WAVE_PASSWORD}}
  byfile: {uri: "%(uri)s", password: {file: "%(file)s"}}
  bycommand: {uri: "%(uri)s", password: {command: [cat, "%(file)s"]}}
  kvm: {uri: "%(kvm)s"}
defaults: {from: byenv, to: kvm, adapt: false, new-identity: true, networks: {VM Network: none}}
limits: {per-source-host: 2, per-worker: 3, bytes-per-second: 2M}
machines:
- {glob: "web*", new-name: "new-{name}"}
- {name: db, from: byfile}
- {name: mail, from: bycommand, to: "%(out)s"}
"""
NAMES = ["db", "mail", "web1", "web2", "web3"]


def book(folder: Path, server: Simulator, kvm: str) -> Path:
    path = folder / "esx.yaml"
    path.write_text(BOOK % {"uri": server.uri(), "file": server.password_file, "kvm": kvm, "out": folder / "out"})
    return path


def test_from_esxi_to_libvirt(daemon: Libvirtd, pool: Path, tmp_path: Path, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = tmp_path / "store"
    store.mkdir()
    paths = [machine(store, name, (8 * MIB,), data=((0, 3 * MIB),)) for name in NAMES]
    with esxi([Datastore(name="datastore1", directory=store)],
              [Registered(path=f"[datastore1] {path}", running=False) for path in paths]) as server:
        path = book(tmp_path, server, address(daemon))
        unset = imgtool("run", path, "--dry-run")
        assert unset.returncode == 2
        assert "the variable WAVE_PASSWORD, which is not set" in unset.stderr
        monkeypatch.setitem(ENVIRONMENT, "WAVE_PASSWORD", server.password)
        plan = result("run", path, "--dry-run")
        assert sorted(one["machine"] for one in plan["machines"]) == ["db", "mail", "new-web1", "new-web2", "new-web3"]
        assert all([step["verb"] for step in one["steps"]] == ["copy", "define"] for one in plan["machines"])
        assert os.listdir(pool) == []
        said = result("run", path)
        assert said["done"] == 5
        secret = server.password
    for name in NAMES:
        there = tmp_path / "out/mail.qcow2" if name == "mail" else pool / f"{'new-' if 'web' in name else ''}{name}.qcow2"
        same(store / name / f"{name}-flat.vmdk", there, "qcow2")
    assert sorted(daemon.virsh("list", "--all", "--name").split()) == ["db", "new-web1", "new-web2", "new-web3"]
    counted = count(audit(state))
    assert counted.most_of_host == {"127.0.0.1": 2}
    assert counted.most <= 3
    found = [file for file in state.rglob("*") if file.is_file() and secret.encode() in file.read_bytes()]
    assert found == []


def test_a_plan_of_all(tmp_path: Path, state: Path) -> None:
    """Each machine's problems; --only takes one; nothing is written."""
    vmx(tmp_path / "good", "good", (MIB,))
    path = tmp_path / "b.yaml"
    path.write_text('name: b\ndefaults: {from: "{name}/{name}.vmx", to: "out/{name}", networks: {VM Network: br0}, '
                    "adapt: false}\nmachines: [good, gone]\n")
    done = imgtool("run", path, "--dry-run", "--json")
    assert done.returncode == 2, done.stderr
    good, gone = json.loads(done.stdout)["machines"]
    assert [step["verb"] for step in good["steps"]] == ["copy", "define"]
    assert [one for one in good["problems"] if one["fatal"]] == []
    assert "does not exist" in gone["problems"][0]["what"]
    text = imgtool("run", path, "--dry-run", "--only", "go*d")
    assert text.returncode == 0, text.stderr
    assert "1 of 1 machines can go" in text.stdout
    nobody = imgtool("run", path, "--only", "x")
    assert nobody.returncode == 2
    assert "there are: good, gone" in nobody.stderr
    path.write_text(path.read_text().replace("[good, gone]", "[{tag: prod, from: good/good.vmx}]"))
    tagged = imgtool("run", path, "--dry-run")
    assert tagged.returncode == 2
    assert "sees no tags" in tagged.stderr
    assert not (tmp_path / "out").exists()
    assert not state.exists()


MACHINES = [Found(name=name, id=name, power=Power.OFF, folder=folder) for name, folder in (
    ("web01", "prod/web"), ("web02", "/prod/web/old/"), ("db", "prod/webs"), ("mail", ""), ("mail", "old"))]


def found(folder: Path, machines: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(migrate, "machines", lambda *_given: MACHINES)
    path = folder / "b.yaml"
    path.write_text(f"name: b\ndefaults: {{from: 'esx://h/', to: ./out}}\nmachines: [{machines}]\n")
    return [task.name for group in tasks_of(load(str(path)), str(folder)) for task in group.tasks]


def test_machines_of_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And of those below it; not of one whose name only begins like it."""
    assert found(tmp_path, "{folder: prod/web}", monkeypatch) == ["web01", "web02"]
    assert found(tmp_path, "{folder: /prod/}", monkeypatch) == ["web01", "web02", "db"]


@pytest.mark.parametrize(("machines", "words", "hint"), [
    ("{folder: test}", "line 3 .test. finds no machine at esx://h/", "there are: web01, web02, db, mail, mail"),
    ("{glob: 'x*'}", "finds no machine", "web01"), ("{tag: prod}", "sees no tags", "custom attributes"),
    ("{glob: 'web*'}, {glob: '*01'}", "web01 is found twice: by line 3 .web.*. and by line 3 .*01.", "exclude each other"),
    ("{glob: 'db'}, {glob: 'db'}", "db is found twice: by line 3 .db. and by line 3 .db.", "exclude each other"),
    ("{glob: 'm*'}", "line 3 .m.. finds two machines that are called mail", "rename one"),
    ("{glob: 'web*'}, web02", "web02 is found twice", "exclude each other")])
def test_what_is_found_never_or_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, machines: str, words: str,
                                      hint: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        found(tmp_path, machines, monkeypatch)
    assert hint in str(caught.value.hint)
