"""One step a disk: killed between two of them, the first is not copied again, and the engine knows it."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from dbos import DBOSClient

from imgtool.runs.engine.store import APPLICATION, database
from tests.migrate.machines import MIB, same, vmx
from tests.program import imgtool
from tests.runbooks.batches import events, started, until

BOOK = """
name: b
defaults: {from: "in/{name}/{name}.vmx", to: "out/{name}", adapt: false, clone: false, networks: {VM Network: br0}}
limits: {bytes-per-second: 8M}
machines: [db]
"""
SIZES = (MIB, 16 * MIB, 12 * MIB)


def steps() -> list[tuple[str, object]]:
    """What the engine has written down of the migration: (step, kind of copy)."""
    client = DBOSClient(system_database_url=database(None).url, application_name=APPLICATION)
    try:
        found = client.list_workflow_steps("b/db/0-migrate+")
    finally:
        client.destroy()
    return [(one["function_name"], one["output"]["engine"] if one["function_name"] == "disk" else None) for one in found]


def test_each_disk_is_a_step(tmp_path: Path, state: Path) -> None:
    (tmp_path / "in").mkdir()
    vmx(tmp_path / "in/db", "db", SIZES)
    path, log = tmp_path / "b.yaml", tmp_path / "log"
    path.write_text(BOOK)
    with started("run", path, log=log) as process:
        until(lambda: process.poll() is not None or (events(state, "disk") and ("disk", "ranges") in steps()), "a disk is whole")
        assert process.poll() is None, log.read_text()
        os.kill(process.pid, signal.SIGKILL)
    assert steps() == [("disks", None), ("disk", "ranges")]
    assert imgtool("run", path).returncode == 0
    for number in range(len(SIZES)):
        same(tmp_path / f"in/db/{number}.raw", tmp_path / f"out/db/db-{number}.qcow2", "qcow2")
    assert steps() == [("disks", None), *[("disk", "ranges")] * 3, ("work", None)]
    whole = [(one["disk"], one["result"]["engine"]) for one in events(state, "disk")]
    assert sorted(one for one in whole if one[1] != "kept") == [(0, "ranges"), (1, "ranges"), (2, "ranges")]
    assert [one["event"] for one in events(state, "begin", "end", "failed")] == ["begin", "begin", "end"]
