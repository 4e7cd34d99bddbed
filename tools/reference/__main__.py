"""Writes all that is made from the code, and removes what is no longer made."""

from __future__ import annotations

import json
from pathlib import Path

from imgtool.cli.app import program
from imgtool.runs.runbook.schema import schema
from tools.reference import man, pages
from tools.reference.tree import MARK, command

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("docs/man", "docs/reference")


def made() -> dict[str, str]:
    """Path below the root → text. Raises ValueError for what is not documented."""
    every = tuple(command(program()).every())
    return {
        **{f"docs/man/{man.file_name(one)}": man.page(one, every) for one in every},
        "docs/reference/cli.md": pages.commands(every),
        "docs/reference/exit-codes.md": pages.exit_codes(),
        "docs/reference/preflight.md": pages.preflight(),
        "docs/reference/runbook.md": pages.runbook(),
        "docs/runbook.schema.json": json.dumps(schema(), indent=2, ensure_ascii=False) + "\n",
    }


def there() -> set[str]:
    """What stands in the folders now, and was made here."""
    return {str(path.relative_to(ROOT)) for folder in FOLDERS for path in (ROOT / folder).glob("*")
            if MARK in path.read_text(encoding="utf-8")}


def main() -> None:
    found = made()
    for path in there() - found.keys():
        (ROOT / path).unlink()
    for path, text in found.items():
        (ROOT / path).parent.mkdir(parents=True, exist_ok=True)
        (ROOT / path).write_text(text, encoding="utf-8")
    print(f"{len(found)} pages")


if __name__ == "__main__":
    main()
