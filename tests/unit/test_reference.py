"""What is written from the code: it is up to date, leaves nothing out, and man(1) can show it."""

from __future__ import annotations

import re
import subprocess
from typing import Annotated

import pytest
import typer
from typer.main import get_command

from imgtool.cli.app import program
from imgtool.steps.preflight import RULES
from tests.program import ROOT
from tools.reference.__main__ import made, there
from tools.reference.pages import messages
from tools.reference.tree import command

PAGES = sorted((ROOT / "docs/man").glob("*.1"))


def test_is_up_to_date() -> None:
    stale = {path for path, text in made().items() if not (ROOT / path).is_file() or (ROOT / path).read_text("utf-8") != text}
    assert stale | (there() - made().keys()) == set(), "make reference"


def test_each_command_has_its_page() -> None:
    names = {f"{'-'.join(one.path)}.1" for one in command(program()).every()}
    assert {"imgtool.1", "imgtool-convert.1", "imgtool-jobs-list.1"} <= names
    assert {path.name for path in PAGES} == names


def app(option: object, about: str) -> object:
    made_of = typer.Typer()

    def convert(this: bool = False) -> None:
        pass

    convert.__doc__ = about
    convert.__annotations__["this"] = Annotated[bool, option]
    made_of.command()(convert)
    return get_command(made_of)


GOOD = "Do it.\n\n\b\nExamples:\n  imgtool convert\n"


@pytest.mark.parametrize(("option", "about"), [
    (typer.Option("--this"), GOOD), (typer.Argument(), GOOD), (typer.Option("--this", help="This."), "Do it."),
    (typer.Option("--this", help="This."), "")])
def test_what_is_not_documented_is_an_error(option: object, about: str) -> None:
    with pytest.raises(ValueError, match="no help"):
        command(app(option, about))


def test_what_is_documented_is_none() -> None:
    found = command(app(typer.Option("--this/--that", help="This."), GOOD))
    assert next(one.names for one in found.options) == ("--this", "--that")


def test_rules_say_what_they_find() -> None:
    said = {rule.id: messages(rule.check) for rule in RULES}
    assert said["source.running"] == ["… is running: its disks change while they are read"]
    assert [name for name, texts in said.items() if not texts] == ["target.tools"]


@pytest.mark.parametrize("argv", [("groff", "-man", "-ww", "-z", "-Tutf8"), ("mandoc", "-Tlint", "-Wwarning")],
                         ids=("groff", "mandoc"))
def test_pages_have_no_warnings(argv: tuple[str, ...]) -> None:
    """mandoc misses a date, which would be another with each build."""
    done = subprocess.run([*argv, *map(str, PAGES)], capture_output=True, text=True, check=False)
    said = [line for line in (done.stdout + done.stderr).splitlines() if "missing date" not in line]
    assert said == []
    assert done.returncode == 0 or argv[0] == "mandoc"


def test_a_page_shows_what_help_says() -> None:
    page = str(ROOT / "docs/man/imgtool-convert.1")
    shown = subprocess.run(["mandoc", "-Tascii", page], capture_output=True, text=True, check=True).stdout
    text = re.sub(".\b", "", shown)  # bold and underlined, as a teletype prints them
    assert "  --verify, --no-verify\n" in text
    assert "  imgtool convert web01.vmx kvm/ --to qcow2 --map-network 'VM Network=br0'\n" in text
