"""Every command of imgtool in a document is one: its options exist, and its arguments are complete."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from imgtool.cli.app import program
from tests.docs import markdown
from tests.program import ROOT

PROGRAM = program()
ENDS = {"|", "||", "&&", ";", "&", ")"}
"""Words of a shell's line with which a command is over."""
REDIRECTION = re.compile(r"\s\d*(?:>&\d|>>?\s*\S+|<\s*\S+)")
ASSIGNMENT = re.compile(r"^\w+=")
OPTION = re.compile(r"--[a-z][a-z-]*")


def typed(line: str) -> Iterator[list[str]]:
    """The arguments of each imgtool in a shell's line."""
    lexer = shlex.shlex(REDIRECTION.sub(" ", line.replace("\\\n", " ")), posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    words: list[str] | None = None
    begins = True
    for word in [*lexer, ";"]:
        if word in ENDS:
            if words is not None:
                yield words
            words, begins = None, True
        elif words is not None:
            words.append(word)
        elif begins and word.rpartition("/")[2] == "imgtool":
            words = []
        else:
            begins = begins and (bool(ASSIGNMENT.match(word)) or word in {"sudo", "time", "("})


def refusal(words: list[str]) -> str | None:
    """Why the command line would not take these words. Nothing is carried out."""
    try:
        with PROGRAM.make_context("imgtool", list(words)) as context:
            name, command, rest = PROGRAM.resolve_command(context, [*context._protected_args, *context.args])
            with command.make_context(name, rest, parent=context):
                return None
    except Exception as error:
        return f"imgtool {shlex.join(words)}: {getattr(error, 'format_message', error.__repr__)()}"


def fenced(path: Path) -> list[str]:
    """Refusals of the commands in fenced blocks: those behind a prompt, or lines that begin with the program."""
    lines = []
    for block in markdown.blocks(path):
        if block.language in ("", "console", "sh", "bash"):
            lines += [one.text for one in markdown.commands(block.text)]
            if "$ " not in block.text:
                lines += [line for line in block.text.replace("\\\n", " ").splitlines() if line.startswith("imgtool ")
                          and "[OPTIONS]" not in line]
    return [why for line in lines for words in typed(line) if (why := refusal(words))]


def spans(path: Path) -> list[str]:
    """What is named in running text (``imgtool adapt IMAGE… --for kvm``) and does not exist."""
    found = []
    for span in markdown.SPAN.findall(markdown.prose(path)):
        words = span.split()
        if words[:1] == ["imgtool"] and len(words) > 1 and words[1].islower() and words[1].isalnum():
            command = PROGRAM.commands.get(words[1])
            known = {option for one in command.params for option in (*one.opts, *one.secondary_opts)} if command else set()
            known |= {"--help"} if command else set()
            wrong = [option for option in OPTION.findall(span) if option not in known]
            found += [span] if (command is None or wrong) and not hasattr(command, "commands") else []
    return found


@pytest.mark.parametrize("path", markdown.documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_exist(path: Path) -> None:
    assert fenced(path) == []
    assert spans(path) == []


def test_a_wrong_one_is_found(tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    path.write_text("`imgtool convert --wrong`, `imgtool fly X`, `imgtool info IMAGE…`\n```console\n"
                    "$ cat x | imgtool info x --json > y && imgtool convert\n$ sudo imgtool info x --jason\n"
                    "$ imgtool info x \\\n    --wrong 2>&1 | head\n$ echo imgtool nothing\nimgtool printed\n```\n")
    assert spans(path) == ["imgtool convert --wrong", "imgtool fly X"]
    assert [why.split(": ")[0] for why in fenced(path)] == ["imgtool convert", "imgtool info x --jason", "imgtool info x --wrong"]


def test_there_are_some() -> None:
    """That none is wrong says nothing where none was seen."""
    blocks = [block for path in markdown.documents() for block in markdown.blocks(path)]
    lines = [one.text for block in blocks for one in markdown.commands(block.text)]
    assert sum(1 for line in lines for _ in typed(line)) > 40
