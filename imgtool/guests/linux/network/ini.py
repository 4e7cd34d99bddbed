"""Files of sections with ``key=value``: systemd's units (systemd.syntax(7)) and NetworkManager's keyfiles."""

from __future__ import annotations


def sections(content: str) -> list[tuple[str, dict[str, list[str]]]]:
    """Each section with its keys, in order; a key may come more than once, and so may a section."""
    found: list[tuple[str, dict[str, list[str]]]] = []
    for line in map(str.strip, content.replace("\\\n", " ").split("\n")):
        if line.startswith("[") and line.endswith("]"):
            found.append((line[1:-1], {}))
        elif found and "=" in line and not line.startswith(("#", ";")):
            key, _, value = line.partition("=")
            found[-1][1].setdefault(key.strip(), []).append(value.strip())
    return found


def values(content: str, section: str, key: str) -> list[str]:
    """All values of a key."""
    return [value for name, keys in sections(content) if name == section for value in keys.get(key, ())]
