"""Runbooks: YAML, and a CSV list that it names. An input is both, with a zero byte between them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from imgtool.runs.runbook import load
from tools.fuzz.target import Reader, Target

WHOLE = b"""name: wave1
endpoints:
  esxi1: {uri: 'esx://root@esxi1/?no_verify=1', password: {env: A}}
  kvm: {uri: 'qemu+ssh://root@kvm1/system'}
defaults: {from: esxi1, to: kvm, allocation: thin}
limits: {per-source-host: 2, bytes-per-second: 100M}
waves:
  - name: a
    machines:
      - {name: db1, new-name: db, on-error: continue, window: {not-before: 2026-11-21T22:00:00+01:00}}
      - name: web
        before: [/bin/true, x]
        steps: [migrate, {convert: {source: a.vmdk, destination: b, to: qcow2}}]
  - {name: b, machines: [{glob: 'app-*'}, {csv: list.csv}]}
"""


def seeds(folder: Path) -> Iterator[bytes]:
    yield WHOLE + b"\0name,storage\nweb1,ssd\n\"web 2\",hdd\n"
    yield b"name: x\ndefaults: {from: a.vmx, to: ./out}\nmachines: [web01]\n\0"
    yield b"name: x\ndefaults: {from: 'esx://h/', to: ./out}\nmachines: [{csv: list.csv}]\n\0name,new-name\na,b\n"


def reader(folder: Path) -> Reader:
    path, rows = folder / "x.yaml", folder / "list.csv"

    def read(data: bytes) -> None:
        text, _, table = data.partition(b"\0")
        path.write_bytes(text)
        rows.write_bytes(table)
        load(str(path))

    return read


TARGET = Target(seeds, reader, largest=4096, words=(
    b"name: ", b"machines:", b"waves:", b"endpoints:", b"defaults:", b"limits:", b"steps:", b"csv: list.csv", b"&a ", b"*a",
    b"<<: ", b"!!python/object:", b"!!binary", b"? ", b"--- ", b"%YAML 1.1", b"%TAG ! x", b"|\n", b">-\n", b"[[[[[[[[",
    b"{{{{{{{{", b"\xef\xbb\xbf", b"\\x00", b"\\ud800", b"0x7fffffffffffffff", b"2026-11-21T22:00:00Z", b"1e400", b".nan",
    b'"', b"'"))
