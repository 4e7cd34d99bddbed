"""The guides' commands, run as they are written, each guide from its top in one shell; what it shows is what is seen.

A block ``console`` has commands behind ``$ ``, and below each the lines that it prints, in their order, perhaps not all.
``…`` stands for anything; sizes and times are not compared. A command fails if, and only if, an ``error:`` is shown below
it. A block with a ``title`` is a file, which is written. What the guides name is really there: ``stage`` has it.
"""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from fixtures.run import bound
from tests.docs import markdown, stage
from tests.docs.markdown import Command
from tests.program import ENVIRONMENT, ROOT

GUIDES = ROOT / "docs" / "guides"
QUICK: dict[str, tuple[str, ...]] = {
    "first-conversion": ("debian_vmdk", "vmware_folder"),
    "thin-and-thick": ("debian_vmdk",),
}
"""Guide → what must be there; a few seconds each."""
LONG: dict[str, tuple[str, ...]] = {
    "leaving-esxi": ("esxi1", "kvm"),
    "going-back": ("esxi1_empty", "kvm_with_web01"),
    "p2v": ("web09", "kvm"),
    "v2p": ("kvm_with_web01", "spare_disk"),
    "a-wave-of-200": ("esxi1", "kvm"),
    "it-does-not-boot": ("debian_vmdk", "vmware_folder"),
    "identities": ("vmware_folder", "kvm"),
}
"""With the appliance, minutes."""
UNRUN = {"many-machines": "PostgreSQL and systemd units on several hosts"}
"""Guide → why its commands are not run, only parsed."""
MARK = re.compile(r"^@@(\d+) (\d+)@@\n", re.MULTILINE)
VARIES = re.compile(r"\b\d+(?:\.\d+)?(?= ?(?:s|min|h|[KMGT]iB|B|bytes)\b)")
"""A quantity."""


@dataclass(frozen=True)
class Ran:
    """What became of a command."""

    command: Command
    printed: str
    code: int

    @property
    def wrong(self) -> str | None:
        """Why this is not what the guide says."""
        fails = any(line.startswith("error:") for line in self.command.shown)
        if (self.code != 0) != fails:
            return f"exit {self.code}, and the guide shows {'an' if fails else 'no'} error"
        lines = iter(self.printed.splitlines())
        for shown in self.command.shown:
            if shown.strip() and shown.strip() != "…" and not any(pattern(shown).fullmatch(line.rstrip()) for line in lines):
                return f"not printed, or not in this order: {shown}"
        return None


def pattern(shown: str) -> re.Pattern[str]:
    """The lines that a line of a guide stands for."""
    parts = (r"\d+(?:\.\d+)?".join(re.escape(text) for text in VARIES.split(part)) for part in shown.rstrip().split("…"))
    return re.compile(".*".join(parts))


def script(commands: list[Command]) -> str:
    """All of a guide, with a mark behind what each command printed, and its exit code."""
    lines = ["said() { local code=$?; printf '@@%d %d@@\\n' \"$1\" \"$code\"; return \"$code\"; }"]
    for number, command in enumerate(commands):
        lines += [command.text, f"said {number}"]
    return "\n".join(lines) + "\n"


def commands_of(guide: Path) -> list[Command]:
    return [one for block in markdown.blocks(guide) if block.language == "console" for one in markdown.commands(block.text)]


def run(guide: Path, props: tuple[str, ...], place: Path) -> list[Ran]:
    """The guide's commands, in a world that has the props."""
    (place / "work").mkdir(parents=True)
    for block in markdown.blocks(guide):
        if block.title:
            (place / "work" / block.title).write_text(block.text, encoding="utf-8")
    commands = commands_of(guide)
    assert commands, f"{guide} has no commands"
    typed = script(commands).replace(f" {stage.SERIAL}", f" {place / stage.SERIAL}")
    (place / "script").write_text(typed, encoding="utf-8")
    stage.ready(props, place)
    argv = bound([*stage.ALONE, sys.executable, "-m", "tests.docs.stage", place / "record", place / "script", *props])
    done = subprocess.run(argv, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert (place / "record").exists(), done.stderr
    parts = MARK.split((place / "record").read_text(encoding="utf-8").replace(f"{place}/", ""))
    ends = zip(parts[::3], parts[1::3], parts[2::3], strict=False)
    return [Ran(commands[int(number)], printed, int(code)) for printed, number, code in ends]


def judge(name: str, props: tuple[str, ...], place: Path) -> None:
    ran = run(GUIDES / f"{name}.md", props, place)
    for one in ran:
        assert one.wrong is None, f"$ {one.command.text}\n{one.printed}\n{one.wrong}"
    assert len(ran) == len(commands_of(GUIDES / f"{name}.md"))


@pytest.mark.parametrize("name", QUICK)
def test_as_written(tmp_path: Path, name: str) -> None:
    judge(name, QUICK[name], tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("name", LONG)
def test_as_written_with_guests(tmp_path: Path, name: str) -> None:
    judge(name, LONG[name], tmp_path)


def test_no_guide_is_forgotten() -> None:
    assert {path.stem for path in GUIDES.glob("*.md")} - {*QUICK, *LONG, *UNRUN} == set()


def test_a_guide_that_is_wrong_is_found(tmp_path: Path) -> None:
    guide = tmp_path / "guide.md"
    guide.write_text('```text title="file"\nhello\n```\n\n```console\n$ cat file\nhello\n$ ls file nothing\nfile\n'
                     '$ X=3.5; echo took $X s \\\n    in all\ntook 9 s in all\n$ echo a; echo b\nb\na\n'
                     '$ echo error: so; false\nerror: …\n$ echo $?\n1\n$ sh -c "exit 4"\nerror: no\n```\n')
    ran = run(guide, (), tmp_path / "place")
    assert [one.wrong is None for one in ran] == [True, False, True, False, True, True, False]
