"""What is offered at TAB: in bash and fish as they call imgtool, and by the functions behind it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from imgtool.cli import completion
from tests.program import ENVIRONMENT, imgtool

BIN = str(Path(sys.executable).parent)
BASH = """
source <(imgtool completion bash)
COMP_LINE=$1$2 COMP_POINT=${#1} COMP_WORDBREAKS=$' \\t\\n"\\'><=;|&(:'
_imgtool imgtool 2>/dev/null
printf '%s\\n' "${COMPREPLY[@]}"
"""
ZSH = """
compadd() { local name=${@[-1]}; print -rl -- ${(P)name} }
_files() { print FILES }
compdef() { }
source <(imgtool completion zsh)
words=(${=1}) CURRENT=$#words PREFIX=$words[-1]
[[ $1 == *' ' ]] && { words+=(''); CURRENT=$#words PREFIX='' }
words+=(${=2})
_imgtool
"""


class Context:
    """What a completer reads of typer's."""

    def __init__(self, **params: str) -> None:
        self.params = params


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    here = tmp_path / "here"
    for name in ("a.qcow2", "with blank.vmdk", "vm.vmx", "notes.txt", ".hidden.qcow2", "bad\x1bname.vmdk"):
        (here / name).parent.mkdir(exist_ok=True)
        (here / name).touch()
    (here / "disks").mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("IMGTOOL_STATE", str(tmp_path / "state"))
    monkeypatch.delenv(completion.AFTER, raising=False)
    return here


def shell(argv: list[str]) -> list[str]:
    environment = {**ENVIRONMENT, "PATH": f"{BIN}:{os.environ['PATH']}", "HOME": os.getcwd()}
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert done.stderr == ""
    return [line for line in done.stdout.splitlines() if line]


def test_bash_completes_a_uri_with_its_colons_and_quotes_names() -> None:
    assert shell(["bash", "-c", BASH, "bash", "imgtool info wi"]) == ["with\\ blank.vmdk"]
    assert shell(["bash", "-c", BASH, "bash", "imgtool migrate --from esx:"]) == ["//"]


def test_zsh_completes() -> None:
    assert shell(["zsh", "-f", "-c", ZSH, "zsh", "imgtool info "]) == ["a.qcow2", "with blank.vmdk", "disks/"]


def test_fish_completes() -> None:
    line = "source (imgtool completion fish | psub); complete -C 'imgtool convert x --to vdi --subformat '"
    assert shell(["fish", "--no-config", "-c", line]) == ["dynamic", "static"]


def test_a_shell_that_is_not_known() -> None:
    done = imgtool("completion", "tcsh")
    assert (done.returncode, done.stdout) == (2, "")
    assert "bash, zsh, fish" in done.stderr


def test_paths() -> None:
    assert completion.disks("") == ["a.qcow2", "disks/", "with blank.vmdk"]
    assert completion.disks(".h") == [".hidden.qcow2"]
    assert completion.machine_files("v") == ["vm.vmx"]
    assert completion.disks("nowhere/") == []
    assert completion.targets("di")[-1] == "disks/"
    assert completion.metal("metal:///de") == ["metal+ssh://", "metal:///dev/", "metal:///dev/"]


def test_a_link_that_leads_nowhere_hides_no_other(folder: Path) -> None:
    (folder / "gone.qcow2").symlink_to("nowhere")
    (folder / "loop").symlink_to("loop")
    assert completion.disks("") == ["a.qcow2", "disks/", "gone.qcow2", "with blank.vmdk"]


def test_what_an_option_takes(folder: Path) -> None:
    (folder / "wave1.yaml").touch()
    assert completion.runbooks("") == ["disks/", "wave1.yaml"]
    assert {"qcow2", "vmdk", "raw"} <= set(completion.formats())
    assert completion.metal_hosts() == ["metal+ssh://"]


def test_disks_to_be_written_are_whole_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = f"{tmp_path}/by-id/"
    monkeypatch.setattr(completion, "BY_ID", place)
    assert completion.metal_disks("vda=") == []
    for name in ("ata-X_1", "ata-X_1-part1", "wwn-0x5", "bad\x1b"):
        (tmp_path / "by-id" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "by-id" / name).touch()
    assert completion.metal_disks("vda=/d") == [f"vda={place}ata-X_1", f"vda={place}wwn-0x5"]
    assert completion.metal_disks("") == [f"{place}ata-X_1", f"{place}wwn-0x5"]


def test_jobs(tmp_path: Path) -> None:
    (tmp_path / "state/jobs").mkdir(parents=True)
    line = {"time": "2026-11-28T00:00:00Z", "event": "start", "verb": "migrate", "machine": "web01"}
    (tmp_path / "state/jobs/migrate-1a2b.jsonl").write_text(json.dumps(line) + "\n")
    assert completion.job_ids() == [("migrate-1a2b", "stopped, web01")]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str | None]]:
    calls: list[tuple[str, str | None]] = []

    def answer(uri: str, file: str | None) -> list[str]:
        calls.append((uri, file))
        return [] if "down" in uri else ["web01", "db\x1b01"]

    monkeypatch.setattr(completion, "_asked", answer)
    return calls


def test_machines_of_an_address_before_or_behind_the_cursor(asked: list[object], monkeypatch: pytest.MonkeyPatch) -> None:
    assert completion.machines(Context(source="esx://root@e/")) == ["web01"]
    assert completion.machines(Context()) == []
    monkeypatch.setenv(completion.AFTER, " --from qemu:///system --password-file=pw")
    assert completion.machines(Context()) == ["web01"]
    assert completion.machines_or_files(Context(), "vm") == ["web01", "vm.vmx"]
    monkeypatch.setenv(completion.AFTER, " --from 'qemu:///")
    assert completion.machines(Context()) == [], "a quote is open"
    assert asked == [("esx://root@e/", None), ("qemu:///system", "pw")]


def test_a_hypervisor_is_not_asked_at_each_tab(asked: list[object]) -> None:
    """Above all not one that did not let us in: it would lock the account."""
    for uri in ("esx://root@e/", "esx://root@down/"):
        assert completion.machines(Context(source=uri)) == completion.machines(Context(source=uri))
    assert len(asked) == 2


def test_a_password_is_not_asked_for_and_a_dead_host_not_waited_for() -> None:
    assert completion.machines(Context(source="esx://root@127.0.0.1:9/?no_verify=1")) == []
    assert completion.machines(Context(source="vpx://root@[")) == []


def test_machines_of_a_hypervisor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The list is made by a process that this starts: here, one that stands in for imgtool."""
    stand_in = tmp_path / "python"
    stand_in.write_text("#!/bin/sh\n[ -t 0 ] && exit 1\necho '{\"machines\": [{\"name\": \"web01\"}]}'\n")
    stand_in.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(stand_in))
    assert completion.machines(Context(source="esx://root@e/")) == ["web01"]
    stand_in.write_text("#!/bin/sh\nsleep 60\n")
    monkeypatch.setattr(completion, "SECONDS", 0.5)
    assert completion.machines(Context(source="esx://root@other/")) == []
