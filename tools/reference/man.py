"""Manual pages in the macros of man(7), as man(1) of groff and mandoc print them."""

from __future__ import annotations

from collections.abc import Iterator

from imgtool.errors import EXIT_CODES
from tools.reference.tree import MARK, Command, Parameter

ENVIRONMENT = {
    "IMGTOOL_PASSWORD": "The password of hypervisors, where no file has it.",
    "IMGTOOL_STATE": "Folder of journals, queues and staged copies. Default: /var/lib/imgtool; without root "
                     "~/.local/state/imgtool.",
    "IMGTOOL_DEBUG": "If it is set, a bug shows its traceback.",
}


def page(command: Command, every: tuple[Command, ...]) -> str:
    """``every``: all commands, for SEE ALSO."""
    return "\n".join(_lines(command, every)) + "\n"


def file_name(command: Command) -> str:
    return "-".join(command.path) + ".1"


def _lines(command: Command, every: tuple[Command, ...]) -> Iterator[str]:
    name = "-".join(command.path)
    yield f'.\\" {MARK}'
    yield f'.TH {_text(name.upper())} 1 "" imgtool "Manual of imgtool"'
    yield from (".SH NAME", f"{_text(name)} \\- {_text(command.summary[0].lower() + command.summary[1:].rstrip('.'))}")
    yield from (".SH SYNOPSIS", f"\\fB{_text(command.name)}\\fR {_text(command.usage.removeprefix(command.name + ' '))}")
    yield from (".SH DESCRIPTION", _text(command.summary))
    for paragraph in command.paragraphs:
        yield from (".PP", _text(paragraph))
    if command.commands:
        yield ".SH COMMANDS"
        for one in command.commands:
            yield from (".TP", f"\\fB{_text('-'.join(one.path))}\\fR(1)", _text(one.summary))
    for title, parameters in (("ARGUMENTS", command.arguments), ("OPTIONS", command.options)):
        if parameters:
            yield f".SH {title}"
            for parameter in parameters:
                yield from _parameter(parameter)
    yield from (".SH EXAMPLES", ".EX", *map(_text, command.examples), ".EE", ".SH EXIT STATUS")
    for code, meaning in EXIT_CODES.items():
        yield from (".TP", f"\\fB{code}\\fR", _text(meaning))
    if len(command.path) == 1:
        yield ".SH ENVIRONMENT"
        for variable, meaning in ENVIRONMENT.items():
            yield from (".TP", f"\\fB{variable}\\fR", _text(meaning))
    yield from (".SH SEE ALSO", ",\n".join(f"\\fB{_text('-'.join(one.path))}\\fR(1)" for one in _neighbours(command, every)))


def _neighbours(command: Command, every: tuple[Command, ...]) -> list[Command]:
    """The command above, those below, and those beside."""
    return [one for one in every if one != command
            and (one.path[:-1] in (command.path, command.path[:-1]) or one.path == command.path[:-1])]


def _parameter(one: Parameter) -> Iterator[str]:
    metavar = f" \\fI{_text(one.metavar)}\\fR" if one.metavar and one.names != (one.metavar,) else ""
    said = f" Default: {one.default}." if one.default else ""
    said += " May be repeated." if one.repeated and "epeat" not in one.help else ""
    face = "I" if one.names == (one.metavar,) else "B"
    yield from (".TP", ", ".join(f"\\f{face}{_text(name)}\\fR" for name in one.names) + metavar, _text(one.help + said))


def _text(text: str) -> str:
    """Characters that troff would take for its own: sources are groff_char(7) and man-pages(7) on hyphens and quotes."""
    for char, escaped in (("\\", "\\e"), ("-", "\\-"), ("'", "\\(aq"), ("`", "\\(ga"), ("^", "\\(ha"), ("~", "\\(ti")):
        text = text.replace(char, escaped)
    return f"\\&{text}" if text.startswith(".") else text
