"""Links between the documents lead somewhere, anchors included; nothing of a page comes from elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.docs import markdown
from tests.program import ROOT


def broken(path: Path) -> list[str]:
    """Links of a document that lead nowhere."""
    found = []
    for link in markdown.links(path):
        name, _, anchor = link.partition("#")
        target = (path.parent / name).resolve() if name else path
        if not target.exists() or (anchor and anchor not in markdown.anchors(target)):
            found.append(link)
    return found


@pytest.mark.parametrize("path", markdown.documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    assert broken(path) == []


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    (tmp_path / "b.md").write_text("# Two words, `code`\n")
    (tmp_path / "a.md").write_text("[a](b.md#two-words-code) [b](b.md#three) [c](c.md) [d](#no) `[e](e.md)`\n"
                                   "```\n[f](f.md)\n```\n")
    assert broken(tmp_path / "a.md") == ["b.md#three", "c.md", "#no"]


def test_every_guide_and_concept_is_on_the_first_page() -> None:
    first = {link.partition("#")[0] for link in markdown.links(ROOT / "docs" / "index.md")}
    docs = ROOT / "docs"
    pages = {str(path.relative_to(docs)) for folder in ("guides", "concepts") for path in (docs / folder).glob("*.md")}
    assert pages - first == set()


def test_every_page_is_in_the_menu_of_the_site() -> None:
    """And the site takes neither fonts nor scripts from elsewhere, which the theme does by default, and its plugin `offline`."""
    site = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    docs = ROOT / "docs"
    assert sorted(pages_of(site["nav"])) == sorted(str(path.relative_to(docs)) for path in docs.rglob("*.md"))
    assert site["theme"]["font"] is False
    assert site["plugins"] == ["search"]


def pages_of(menu: list[Any]) -> list[str]:
    """Paths in a menu, whose entries are paths, or titles with menus."""
    return [path for entry in menu for path in ([entry] if isinstance(entry, str) else pages_of(next(iter(entry.values()))))]
