"""Pages of the reference in Markdown: commands, exit codes, rules of preflight, keys of a runbook."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterable, Iterator
from typing import Any

from imgtool import errors
from imgtool.runs.runbook.schema import schema
from imgtool.steps.preflight import RULES, Check
from tools.reference.tree import MARK, Command, Parameter

HEAD = f"<!-- {MARK} -->\n"


def commands(every: tuple[Command, ...]) -> str:
    """``docs/reference/cli.md``."""
    lines = [HEAD, "# Command line", "", "Options may stand before or after arguments. The same is in `man imgtool`, "
             "`man imgtool-convert` and so on, and in `--help`.", ""]
    for one in every:
        lines += [f"## {one.name}", "", one.summary, "", *(line for text in one.paragraphs for line in (text, "")),
                  "```", one.usage, "```", "", "```", *one.examples, "```", ""]
        if one.commands:
            lines += [*table(("command", "what for"), ((f"[{below.name}](#{'-'.join(below.path)})", below.summary)
                                                       for below in one.commands)), ""]
        lines += [*table(("argument or option", "meaning", "default"), map(_row, (*one.arguments, *one.options))), ""]
    return "\n".join(lines)


def exit_codes() -> str:
    """``docs/reference/exit-codes.md``."""
    said = {code: [one for one in _errors() if one.exit_code == code] for code in errors.EXIT_CODES}
    rows = ((f"{code}", meaning, " ".join(text for one in said[code] if code != 1 and
                                            (text := inspect.getdoc(one) or "").lower() != f"{meaning}.".lower()))
            for code, meaning in errors.EXIT_CODES.items())
    return "\n".join((HEAD, "# Exit codes", "", *table(("code", "meaning", "when"), rows), ""))


def _errors() -> Iterator[type[errors.ImgtoolError]]:
    for one in vars(errors).values():
        if isinstance(one, type) and issubclass(one, errors.ImgtoolError):
            yield one


def preflight() -> str:
    """``docs/reference/preflight.md``."""
    rows = ((f"`{rule.id}`", rule.level, "; ".join(messages(rule.check)) or "as the target says it", rule.hint) for rule in RULES)
    return "\n".join((
        HEAD, "# Rules of preflight", "", "What `migrate`, `p2v` and runbooks look for before the first byte is copied. A fatal "
        "finding ends with exit code 4, with `--dry-run` too; warnings and notes are said. … stands for a name or a number.",
        "",
        *table(("rule", "level", "what is found", "what to do"), rows), ""))


def messages(check: Check) -> list[str]:
    """The texts that a rule yields, from its source."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(check)))
    return [text for node in ast.walk(tree) if isinstance(node, ast.Yield | ast.YieldFrom) for text in _texts(node)]


def _texts(node: ast.Yield | ast.YieldFrom) -> Iterator[str]:
    value = node.value.elt if isinstance(node.value, ast.GeneratorExp) else node.value
    if isinstance(value, ast.Constant):
        yield str(value.value)
    elif isinstance(value, ast.JoinedStr):
        yield "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in value.values)


def runbook() -> str:
    """``docs/reference/runbook.md``."""
    made = schema()
    inner: dict[str, dict[str, Any]] = made["$defs"]
    shared = inner["Settings"]["properties"].keys()
    lines = [HEAD, "# Keys of a runbook", "", "What they do: [runbooks](../reference.md#runbooks). For editors: "
             "[runbook.schema.json](../runbook.schema.json).", ""]
    for name, one in {"Runbook": made, **inner}.items():
        own = {key: value for key, value in one["properties"].items() if name == "Settings" or key not in shared or not
               inner["Settings"]["properties"].keys() <= one["properties"].keys()}
        more = "" if len(own) == len(one["properties"]) else " It also has all keys of [Settings](#settings)."
        lines += [f"## {name}", "", one["description"] + more, ""]
        if own:
            lines += [*table(("key", "value", "meaning"), (
                (f"`{key}`" + (" (needed)" if key in one.get("required", ()) else ""), _kind(value), value["description"])
                for key, value in own.items())), ""]
    return "\n".join(lines)


def _kind(value: dict[str, Any]) -> str:
    """A JSON schema in words."""
    match value:
        case {"enum": words}:
            return ", ".join(words)
        case {"$ref": reference}:
            name = reference.rpartition("/")[2]
            return f"[{name}](#{name.lower()})"
        case {"anyOf": kinds}:
            return " or ".join(dict.fromkeys(map(_kind, kinds)))
        case {"properties": inner}:
            return " ".join(f"`{key}:` {_kind(one)}" for key, one in inner.items())
        case {"type": "array", "items": items}:
            return f"list of {_kind(items)}"
        case {"additionalProperties": dict() as of}:
            return f"mapping to {_kind(of)}"
        case {"format": "date-time"}:
            return "time"
        case {"type": ["integer", "string"]}:
            return "bytes, as in 100M"
        case {"type": "integer"}:
            return "number"
        case {"type": "boolean"}:
            return "true or false"
        case _:
            return "text"


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{' --- |' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |"


def _row(one: Parameter) -> tuple[str, str, str]:
    is_option = one.names[0].startswith("-")
    said = ", ".join(f"`{name}{f' {one.metavar}' if one.metavar and is_option else ''}`" for name in one.names)
    help_ = one.help.replace("<", "&lt;").replace("*", "\\*")
    return said + (" (needed)" if one.needed else ""), help_ + (
        " May be repeated." if one.repeated and "epeat" not in one.help else ""), one.default
