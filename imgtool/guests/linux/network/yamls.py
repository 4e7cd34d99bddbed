"""YAML of strangers: plain values only, of a bounded size; netplan and cloud-init have the same tree of settings."""

from __future__ import annotations

from collections.abc import Iterator

from imgtool.guests.linux.network import names
from imgtool.model.guest import NicConfig

MAX_YAML = 64 << 10
MAX_MERGED = 1000
"""Keys of one mapping, with those that ``<<`` takes from others: before PyYAML 6.0.4 they can be more than the memory holds."""


def load(content: str) -> dict[str, object]:
    """The mapping at the top; {} for what is none, is too large, or no YAML."""
    import yaml

    class Loader(yaml.SafeLoader):
        def flatten_mapping(self, node: yaml.MappingNode) -> None:
            super().flatten_mapping(node)
            if len(node.value) > MAX_MERGED:
                raise yaml.YAMLError("too many keys")

    if len(content) > MAX_YAML:
        return {}
    try:
        return mapping(yaml.load(content, Loader))  # noqa: S506 - it is a SafeLoader
    except (yaml.YAMLError, ValueError, RecursionError, TypeError, AttributeError, LookupError):  # odd dates, keys, words, depths
        return {}


def mapping(value: object) -> dict[str, object]:
    """{} for anything else."""
    return {word(key): one for key, one in value.items()} if isinstance(value, dict) else {}


def word(value: object) -> str:
    """A plain value as text, "" for anything else: lists of lists of one list can be endless as text."""
    return str(value) if isinstance(value, str | int | float) else ""


def version_2(network: object, system: str, path: str) -> Iterator[NicConfig]:
    """``ethernets`` of netplan's format. A key is a name, unless ``match`` says otherwise."""
    for key, value in mapping(mapping(network).get("ethernets")).items():
        settings = mapping(value)
        match = mapping(settings.get("match"))
        name = word(settings.get("set-name")) or word(match.get("name")) or ("" if match else key)
        yield NicConfig(name=name or "*", system=system, path=path, mac=names.mac(word(match.get("macaddress"))),
                        addresses=tuple(_addresses(settings)), dhcp=True in (settings.get("dhcp4"), settings.get("dhcp6")))


def _addresses(settings: dict[str, object]) -> Iterator[str]:
    found = settings.get("addresses")
    for one in found if isinstance(found, list) else ():
        yield from (mapping(one) or [word(one)])
