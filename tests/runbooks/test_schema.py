"""The JSON schema that is shipped, and what survives the engine's database."""

from __future__ import annotations

import json
from datetime import datetime

from imgtool.frozen import frozen, thawed
from imgtool.model import Allocation
from imgtool.model.runbook import ConvertStep, Endpoint, MigrateStep, OnError, Secret, Settings, Task, Window
from imgtool.runs.runbook.schema import schema
from tests.program import ROOT


def test_the_shipped_schema_is_that_of_the_model() -> None:
    path, made_by = ROOT / "docs/runbook.schema.json", "make reference"
    assert json.loads(path.read_text(encoding="utf-8")) == schema(), made_by


def test_the_schema_names_each_key() -> None:
    made = schema()
    assert made["required"] == ["name"]
    machine = made["$defs"]["Machine"]
    assert {"name", "glob", "csv", "from", "to", "new-name", "on-error", "steps"} <= machine["properties"].keys()
    assert "line" not in machine["properties"]
    assert made["$defs"]["Settings"]["properties"]["allocation"]["enum"] == ["thin", "thick", "eager"]


def test_a_task_comes_back_as_it_was() -> None:
    window = Window(not_before=datetime.fromisoformat("2026-11-21T22:00:00+01:00"))
    settings = Settings(allocation=Allocation.THICK, networks=(("VM Network", "br0"),), on_error=OnError.STOP, window=window,
                        steps=(MigrateStep(), ConvertStep(source="a", destination="b", to="raw")), before=("/bin/true", "x"))
    task = Task(batch="b", wave="w", name="n", settings=settings, source=Endpoint(uri="esx://e/", password=Secret(env="P")),
                target=None, source_host="e", target_host="localhost")
    assert thawed(Task, json.loads(json.dumps(frozen(task)))) == task
