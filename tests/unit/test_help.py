"""What --help says: of every command, in any terminal, and that its examples are commands."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator

import pytest
from typer.core import TyperCommand, TyperGroup

from imgtool.cli.app import program
from tests.program import ENVIRONMENT

PLACES = {"a pipe": {}, "no colour": {"NO_COLOR": "1", "TERM": "xterm-256color"}, "Korean": {"LANG": "ko_KR.UTF-8"},
          "C": {"LANG": "C", "LC_ALL": "C"}, "ASCII": {"PYTHONIOENCODING": "ascii"}, "a wide terminal": {"COLUMNS": "200"}}


def commands(tree: TyperGroup, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], TyperCommand | TyperGroup]]:
    yield path, tree
    for name, one in tree.commands.items():
        if isinstance(one, TyperGroup):
            yield from commands(one, (*path, name))
        else:
            yield (*path, name), one


ASKING = """
import sys
from imgtool.cli.app import _run
for line in sys.stdin:
    sys.argv = [*line.split(), "-h"]
    _run()
"""
EVERY = dict(commands(program()))


def words(path: tuple[str, ...]) -> str:
    return " ".join(("imgtool", *path))


def examples(command: TyperCommand | TyperGroup) -> list[str]:
    """Their lines, those joined that end in a backslash."""
    text = (command.help or "").partition("\b\nExamples:\n")[2].replace("\\\n", " ")
    return [line.strip() for line in text.splitlines() if line.strip()]


@pytest.mark.parametrize("path", EVERY, ids=words)
def test_two_examples_that_are_commands(path: tuple[str, ...]) -> None:
    found = examples(EVERY[path])
    assert len(found) == 2, found
    for line in found:
        argv = shlex.split(re.sub(r"^source <\((.*)\)$|^(.*?) [|>] .*$", lambda match: match[1] or match[2], line))
        assert argv[:1 + len(path)] == ["imgtool", *path]
        command, context = EVERY[()], EVERY[()].make_context("imgtool", argv[1:], resilient_parsing=False)
        while isinstance(command, TyperGroup) and (rest := [*context._protected_args, *context.args]):
            name, following, left = command.resolve_command(context, rest)
            assert following is not None
            command, context = following, following.make_context(name, left, parent=context)
        assert not context.args


@pytest.mark.parametrize("where", PLACES)
def test_can_be_read_in(where: str) -> None:
    """One process for all commands: it is started as a program is."""
    lines = "\n".join(map(words, EVERY))
    said = ("LANG", "LC_ALL", "LC_CTYPE", "COLUMNS", "NO_COLOR")
    plain = {name: value for name, value in ENVIRONMENT.items() if name not in said}
    done = subprocess.run([sys.executable, "-c", ASKING], input=lines, env={**plain, **PLACES[where]}, capture_output=True,
                          text=True, encoding="ascii", check=True)
    assert not done.stderr
    assert done.stdout.count("Usage: imgtool") == len(EVERY)
    assert "\x1b" not in done.stdout
    assert "\b" not in done.stdout
    assert [line for line in done.stdout.splitlines() if len(line) > 80] == []


def test_the_list_of_commands_is_not_cut() -> None:
    for group in (EVERY[()], EVERY["jobs",]):
        text = group.get_help(group.make_context("imgtool", [], resilient_parsing=True))
        assert "..." not in text.partition("Commands:")[2], text


def test_without_a_command_help_is_shown_on_stderr() -> None:
    done = subprocess.run([sys.executable, "-m", "imgtool"], env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "\n  convert  " in done.stderr
    assert "error:" not in done.stderr
