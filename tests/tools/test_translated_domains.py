"""Every domain that a hand-written description becomes is one that libvirt takes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.golden import TRANSLATIONS
from tests.libvirt import refusals

PATHS = sorted(TRANSLATIONS.glob("*.to.xml"))
NEEDS = re.compile(rb"<tpm |arch=\"aarch64\"")
"""swtpm, and an emulator of ARM: to define those a host must have them. Their XML is held against the schema only."""


def alone(number: int, text: bytes) -> bytes:
    """Name and uuid of its own, so that all can be defined in one place; emulated, whatever the host has."""
    text = re.sub(rb"<name>.*?</name>", b"<name>n%d</name>" % number, text, count=1, flags=re.DOTALL)
    text = re.sub(rb"<uuid>.*?</uuid>", b"<uuid>42157f29-ff24-054c-708d-%012d</uuid>" % number, text, count=1)
    text = text.replace(b'<domain type="kvm"', b'<domain type="qemu"').replace(b'cpu mode="host-model"', b'cpu mode="maximum"')
    return text.replace(b'cpu mode="host-passthrough"', b'cpu mode="maximum"')


def test_libvirt_takes_them(tmp_path_factory: pytest.TempPathFactory) -> None:
    domains = {path.name: alone(number, path.read_bytes()) for number, path in enumerate(PATHS)}
    assert len(domains) >= 40
    place: Path = tmp_path_factory.mktemp("libvirt")
    usual = {name: text for name, text in domains.items() if not NEEDS.search(text)}
    assert refusals(usual, place) == {}
    assert refusals({name: text for name, text in domains.items() if name not in usual}, place, commands=[]) == {}
