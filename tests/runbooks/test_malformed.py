"""Wrong runbooks: each thing that is wrong has its line, its column and a remedy; all of a file at once; exit code 2."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from imgtool.errors import UsageError
from imgtool.runs.runbook import load
from imgtool.runs.runbook.nodes import RunbookError
from tests.program import imgtool

HEAD = "name: wave1\ndefaults: {from: esx://root@esxi1/, to: qemu:///system}\n"
ONE = "machines: [web01]\n"
CASES: list[tuple[str, int, int, str, str]] = [
    # what stands in the file, line, column, words of the message, words of the remedy
    ("", 1, 1, "empty; expected a mapping", "Runbooks"),
    ("- web01\n", 1, 1, "a list; expected a mapping", "name: wave1"),
    ("name: wave1\n", 1, 1, "no machines; expected machines", "machines: [web01"),
    (ONE, 1, 1, "name is missing", "name: wave1"),
    (HEAD.replace("wave1", "wave 1") + ONE, 1, 7, "'wave 1'; expected letters", "name: wave1"),
    (HEAD + "machine: [web01]\n", 3, 1, "'machine': no such key here; expected one of name", "did you mean machines?"),
    (HEAD + ONE + "name: other\n", 4, 1, "name stands here twice", "remove one"),
    (HEAD + "machines: web01\n", 3, 11, "a text; expected a list", "machines: [A, B]"),
    (HEAD + "machines: [web01, web01]\n", 3, 19, "machine web01 stands in line 3 already", "remove one"),
    (HEAD + "machines: [{name: a, glob: 'b*'}]\n", 3, 12, "expected one of name, glob, folder, tag, csv; there is name and glob",
     "- name: web01"),
    (HEAD + "machines: [{storage: ssd}]\n", 3, 12, "there is none of them", "- name: web01"),
    (HEAD + "machines: [{name: a, allocation: fat}]\n", 3, 34, "'fat'; expected thin or thick or eager", "allocation: thin"),
    (HEAD + "machines: [{name: a, verify: maybe}]\n", 3, 30, "'maybe'; expected true or false", "verify: true"),
    (HEAD + "machines: [{name: a, new-name: }]\n", 3, 32, "nothing; expected a text", "new-name: TEXT"),
    (HEAD + "machines: [{name: a, steps: [migrat]}]\n", 3, 30, "migrat; expected a step: migrate, p2v", "did you mean migrate?"),
    (HEAD + "machines: [{name: a, steps: [{convert: {source: a.vmdk, to: qcow2}}]}]\n", 3, 40, "convert: destination is missing",
     "destination: …"),
    (HEAD + "machines:\n  - name: a\n    steps:\n      - convert: {source: a, destination: b, to: qcow3}\n", 6, 50,
     "unknown format 'qcow3'", "one of: qcow2"),
    (HEAD + "machines: [{name: a, steps: [{convert: {source: a.vmdk, destination: b.qcow2, to: raw}}]}]\n", 3, 70,
     "b.qcow2 is a name for qcow2, not for raw", "use the suffix .raw"),
    (HEAD + "machines: [{name: a, steps: [{translate: {source: a.vmx, destination: a.txt}}]}]\n", 3, 71,
     "a.txt does not say which description", "name it .vmx"),
    (HEAD + "machines: [{name: a, steps: [{translate: {source: a.vmx, destination: a.ova}}]}]\n", 3, 71,
     "a.ova does not say which description", "name it .vmx"),
    (HEAD + 'machines: ["web\\x0101"]\n', 3, 12, "control characters in a text", "remove them"),
    (HEAD + "machines: [{name: a, steps: [{v2p: {disks: {vda: /dev/sdb}}}]}]\n", 3, 44,
     "nothing confirms that /dev/sdb may be written over", "confirm: [SERIAL]"),
    (HEAD + "machines: [{name: a, steps: [{v2p: {disks: {}}}]}]\n", 3, 44, "v2p: no disks", "disks: {vda: /dev/disk/by-id/"),
    (HEAD + "machines: [{name: a, networks: {[a]: b}}]\n", 3, 33, "a list as a key; expected a text", "quote it"),
    (HEAD + "machines: [{name: a, networks: {VM: a, VM: b}}]\n", 3, 40, "VM stands here twice", "remove one of the two"),
    (HEAD + "machines: [{name: a, hardware-version: new}]\n", 3, 40, "'new'; expected a whole number", "hardware-version: 13"),
    (HEAD + "machines: [{name: a, before: /bin/true}]\n", 3, 30, "before: a text; expected a list", "there is no shell"),
    (HEAD + "machines: [{name: a, after: []}]\n", 3, 29, "an empty list; expected a program", "[/usr/bin/program"),
    (HEAD + "machines: [{name: a, from: esxi9}]\n", 3, 28, "from: no endpoint esxi9", "endpoints: {esxi9:"),
    (HEAD + "machines: [{name: a, to: 'ftp://x/'}]\n", 3, 26, "ftp:// is no address", "known: esx"),
    (HEAD + ONE + "endpoints: {e: {uri: 'esx://root:geheim@esxi1/'}}\n", 4, 22, "a password must not stand in an address",
     "{env: NAME}"),
    (HEAD + ONE + "endpoints: {e: {uri: 'esx://root@esxi1/', password: geheim}}\n", 4, 53,
     "a password must not stand in a runbook", "password: {env: NAME}"),
    (HEAD + ONE + "endpoints: {e: {uri: 'esx://e/', password: {env: A, file: b}}}\n", 4, 44, "there is env and file", "{env: "),
    (HEAD + ONE + "endpoints: {e: {uri: }}\n", 4, 22, "uri: nothing; expected a text", "uri: TEXT"),
    (HEAD + "machines: [{name: a, steps: [{convert: {source: a, destination: b, to: }}]}]\n", 3, 72,
     "to: nothing; expected a text", "to: TEXT"),
    (HEAD + ONE + "limits: {per-source-host: 0}\n", 4, 27, "'0'; expected a number from 1 on", "per-source-host: 2"),
    (HEAD + ONE + "limits: {bytes-per-second: fast}\n", 4, 28, "'fast'; expected a number of bytes", "100M"),
    (HEAD + ONE + "limits: {source-hosts: [esxi1]}\n", 4, 24, "a list; expected a mapping", "source-hosts: {A: B}"),
    (HEAD + "machines: [{name: a, window: {until: tomorrow}}]\n", 3, 38, "'tomorrow'; expected a time", "2026-"),
    (HEAD + "machines: [{name: a, window: {until: 2026-11-21T22:00:00}}]\n", 3, 38, "a time without a zone", "+01:00"),
    (HEAD + "machines: [{name: a, window: {not-before: 2026-11-22T00:00:00Z, until: 2026-11-21T00:00:00Z}}]\n", 3, 72,
     "until is not after not-before", "a time after"),
    (HEAD + "machines: [{name: a, on-error: explode}]\n", 3, 32, "'explode'; expected stop or continue", "on-error: stop"),
    (HEAD + ONE + "waves: [{name: a, machines: [b]}]\n", 3, 11, "machines and waves; expected one of the two",
     "wave of their own"),
    (HEAD + "waves: [{name: a, machines: [b]}, {name: a, machines: [c]}]\n", 3, 42, "wave a stands here twice", "another name"),
    ("name: wave1\ndefaults: {to: ./out}\nmachines: [web01]\n", 3, 12, "web01: from is missing", "defaults: {from: …}"),
    (HEAD + "machines: [{csv: missing.csv}]\n", 3, 18, "missing.csv cannot be read: No such file", "UTF-8"),
    (HEAD + "machines: [{name: a, new-name: '{host}'}]\n", 3, 32, "{host}: expected {name}", "write {name}"),
    (HEAD + "machines: [web01\n", 4, 1, "this is no YAML", "brackets"),
    (HEAD + "machines: [*web]\n", 3, 12, "an alias (*web); aliases are not read", "defaults"),
    (HEAD + "machines: [!!python/object/apply:os.system [id]]\n", 3, 12,
     "a tag (tag:yaml.org,2002:python/object/apply:os.system)", "remove it"),
    (HEAD + f"machines: {'[' * 30}{']' * 30}\n", 3, 27, "more than 16 levels deep", "brackets"),
    (HEAD + ONE + "---\nname: b\n", 5, 1, "a second document; expected one", "---"),
    (HEAD + "machines: ['a\x07b']\n", 3, 14, "a character that YAML does not allow", "remove it"),
]


@pytest.mark.parametrize(("text", "line", "column", "words", "remedy"), CASES, ids=[case[3][:40] for case in CASES])
def test_has_its_place_and_its_remedy(tmp_path: Path, text: str, line: int, column: int, words: str, remedy: str) -> None:
    path = tmp_path / "wave1.yaml"
    path.write_bytes(text.encode())
    with pytest.raises(RunbookError) as caught:
        load(str(path))
    said = [(one.line, one.column, one.what, one.hint) for one in caught.value.complaints]
    found = [one for one in said if one[:2] == (line, column) and words in one[2] and remedy in one[3]]
    assert len(found) == 1, said
    assert len(said) == 1, said
    assert "geheim" not in str(said)


def test_all_of_a_file_at_once(tmp_path: Path) -> None:
    path = tmp_path / "w.yaml"
    path.write_text(HEAD + "limits: {per-worker: none}\nmachines: [{nam: a}, {name: b, form: x}]\n")
    done = imgtool("run", path, "--check")
    assert done.returncode == 2
    assert done.stdout == ""
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert all(re.match(r"error: w\.yaml:\d+:\d+: ", line) for line in errors)
    assert [line.split(":")[2] for line in errors] == ["3", "4", "4", "4"]
    assert done.stderr.count("hint: ") == len(errors)
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("sign", ["\u2028", "\x85", "\x0b", "\x1c"])
def test_only_an_end_of_a_line_ends_a_row(tmp_path: Path, sign: str) -> None:
    """Else one name would be two, and one of them another machine's."""
    (tmp_path / "list.csv").write_text(f"name,storage\nweb{sign}db,ssd\n", encoding="utf-8")
    path = tmp_path / "wave1.yaml"
    path.write_text(HEAD + "machines: [{csv: list.csv}]\n")
    with pytest.raises(RunbookError, match=r"list.csv:2:1: name: control characters"):
        load(str(path))


def test_rows_of_a_csv_have_places_too(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("name,verify,storage\na,true,ssd\nb,perhaps,\nc,true,x,y\n")
    path = tmp_path / "w.yaml"
    path.write_text(HEAD + "machines: [{csv: list.csv}]\n")
    with pytest.raises(RunbookError) as caught:
        load(str(path))
    assert [(one.file, one.line, one.column) for one in caught.value.complaints] == [("list.csv", 3, 2), ("list.csv", 4, 4)]


@pytest.mark.parametrize(("rows", "place", "words"), [
    ("storage,new-name\nssd,x\n", (1, 1), "no column name"), ("", (1, 1), "no column name"),
    ("name,nam\na,b\n", (1, 2), "'nam': no such column"), ("name,steps\na,b\n", (1, 2), "'steps': no such column"),
    ("name,verify,\na,true,\n", (1, 3), "'': no such column")])
def test_a_first_row_that_is_none(tmp_path: Path, rows: str, place: tuple[int, int], words: str) -> None:
    (tmp_path / "list.csv").write_text(rows)
    path = tmp_path / "w.yaml"
    path.write_text(HEAD + "machines: [{csv: list.csv}]\n")
    with pytest.raises(RunbookError, match=words) as caught:
        load(str(path))
    assert [(one.file, one.line, one.column) for one in caught.value.complaints] == [("list.csv", *place)]


def test_a_table_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("name\n" + "a" * (9 << 20))
    path = tmp_path / "w.yaml"
    path.write_text(HEAD + "machines: [{csv: list.csv}]\n")
    with pytest.raises(RunbookError, match=r"list\.csv cannot be read: larger than \d+ MiB"):
        load(str(path))


def test_a_sound_one(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("name,new-name,start\na,b,true\nc,,\n")
    path = tmp_path / "w.yaml"
    path.write_text(HEAD + "machines:\n- {csv: list.csv, storage: ssd}\n- web01\n"
                    "- {name: db01, steps: [migrate, {verify: {left: a, right: b}}], before: [/bin/true],\n"
                    "   window: {not-before: 2026-11-21T22:00:00+01:00}}\n"
                    "limits: {bytes-per-second: 100M, source-hosts: {esxi1: 4}}\n")
    book = load(str(path))
    assert [(one.name, one.new_name, one.storage, one.start) for one in book.machines] == [
        ("a", "b", "ssd", True), ("c", None, "ssd", None), ("web01", None, None, None), ("db01", None, None, None)]
    assert book.limits.bytes_per_second == 100 << 20
    assert book.limits.source_hosts == (("esxi1", 4),)
    done = imgtool("run", path, "--check", "--json")
    assert (done.returncode, json.loads(done.stdout)) == (0, {"name": "wave1", "waves": 0, "entries": 4})


@pytest.mark.parametrize(("raw", "words"), [(b"name: \xff\n", "not UTF-8"), (b"#" * (9 << 20), "larger than")])
def test_bytes_that_are_no_runbook(tmp_path: Path, raw: bytes, words: str) -> None:
    path = tmp_path / "w.yaml"
    path.write_bytes(raw)
    with pytest.raises(RunbookError, match=words):
        load(str(path))
    with pytest.raises(UsageError, match="cannot be read"):
        load(str(tmp_path / "missing.yaml"))
