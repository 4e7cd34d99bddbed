"""Domain XML: what is written is read again, and an existing file keeps what does not change."""

from __future__ import annotations

from hypothesis import given, settings

from imgtool.descriptions.domain_xml import parse, render
from imgtool.model.machine import Machine
from tests.machines import machines


@given(machines())
@settings(max_examples=150, deadline=None)
def test_what_is_written_is_read_again(machine: Machine) -> None:
    rendered = render(machine)
    assert parse(rendered.text).machine == machine
    assert rendered.problems == ()
    assert parse(rendered.text).problems == ()


@given(machines(), machines())
@settings(max_examples=60, deadline=None)
def test_what_is_written_onto_another_is_read_again(machine: Machine, other: Machine) -> None:
    assert parse(render(machine, onto=render(other).text).text).machine == machine
