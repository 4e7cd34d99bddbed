"""The commands of imgtool as plain values, from typer's tree."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass

from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption

HELP = "Show this message and exit."
MARK = "Written by make reference from the code: do not edit."


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """An option or an argument."""

    names: tuple[str, ...]
    """``--verify``, ``--no-verify``; of an argument its metavar."""
    metavar: str
    """Of an option; empty for a flag."""
    help: str
    default: str
    needed: bool
    repeated: bool


@dataclass(frozen=True, kw_only=True)
class Command:
    path: tuple[str, ...]
    """``("imgtool", "jobs", "list")``."""
    summary: str
    """One sentence, with its full stop."""
    paragraphs: tuple[str, ...]
    examples: tuple[str, ...]
    """Lines; those that go on are indented."""
    arguments: tuple[Parameter, ...]
    options: tuple[Parameter, ...]
    commands: tuple[Command, ...]

    @property
    def name(self) -> str:
        return " ".join(self.path)

    @property
    def usage(self) -> str:
        """As in a synopsis."""
        if self.commands:
            return f"{self.name} [OPTIONS] COMMAND [ARGUMENTS]"
        said = (one.names[0] if one.needed else f"[{one.names[0]}]" for one in self.arguments)
        return " ".join((self.name, "[OPTIONS]", *said))

    def every(self) -> Iterator[Command]:
        """This one, and those below it."""
        yield self
        for one in self.commands:
            yield from one.every()


def command(found: object, path: tuple[str, ...] = ("imgtool",)) -> Command:
    """Raises ValueError for what is not documented."""
    if not isinstance(found, TyperCommand | TyperGroup):
        raise TypeError(f"{path}: {type(found).__name__}")
    before, _, after = inspect.cleandoc(found.help or "").partition("\b\nExamples:\n")
    paragraphs = [" ".join(one.split()) for one in before.split("\n\n") if one.strip()]
    if not paragraphs or not after:
        raise ValueError(f"{' '.join(path)}: no help, or no examples")
    below = tuple(command(one, (*path, name)) for name, one in found.commands.items()) if isinstance(
        found, TyperGroup) else ()
    return Command(
        path=path, summary=paragraphs[0], paragraphs=tuple(paragraphs[1:]), commands=below,
        examples=tuple(line.removeprefix("  ") for line in after.splitlines()),
        arguments=tuple(_parameter(one, path) for one in found.params if isinstance(one, TyperArgument) and not one.hidden),
        options=(*(_parameter(one, path) for one in found.params if isinstance(one, TyperOption) and not one.hidden),
                 Parameter(names=("-h", "--help"), metavar="", help=HELP, default="", needed=False, repeated=False)))


def _parameter(one: TyperArgument | TyperOption, path: tuple[str, ...]) -> Parameter:
    metavar = one.metavar or (one.name or "").upper()
    is_option = isinstance(one, TyperOption)
    names = tuple(sorted((*one.opts, *one.secondary_opts), key=lambda name: name.startswith("--"))) if is_option else (metavar,)
    if not one.help:
        raise ValueError(f"{' '.join(path)} {names[0]}: no help")
    flag = isinstance(one, TyperOption) and bool(one.is_flag)
    return Parameter(names=names, metavar="" if flag else metavar, help=" ".join(one.help.split()),
                     default=_default(one, flag=flag), needed=bool(one.required), repeated=bool(is_option and one.multiple))


def _default(one: TyperArgument | TyperOption, *, flag: bool) -> str:
    """What is told of it: nothing for what is off, empty or made at run time."""
    if flag:
        return (one.opts if one.default else one.secondary_opts)[0] if one.secondary_opts and one.default is not None else ""
    return "" if one.default in (None, "", ()) or callable(one.default) else f"{one.default:g}" if isinstance(
        one.default, float) else str(one.default)
