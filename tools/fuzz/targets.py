"""All targets by name: which module of ``readers`` has them. Loaded when asked for, so that atheris can count their branches."""

from __future__ import annotations

from importlib import import_module

from tools.fuzz.target import Target

TARGETS: dict[str, str] = {
    "qcow2": "qcow2",
    "vmdk-sparse": "vmdk_sparse",
    "vmdk-stream": "vmdk_stream",
    "vmdk-descriptor": "vmdk_descriptor",
    "vmdk-cowd": "vmdk_deltas:COWD",
    "vmdk-sesparse": "vmdk_deltas:SESPARSE",
    "unstream": "unstream",
    "foreign": "foreign",
    "vmx": "vmx",
    "vmx-neighbours": "vmx_neighbours",
    "domain-xml": "domain_xml",
    "ovf": "ovf",
    "ova": "ova",
    "manifest": "manifest",
    "runbook": "runbook",
    "partitions": "partitions",
    "initramfs": "initramfs",
    "iso": "iso",
    "guest": "guest",
    "far": "far",
    "far-chain": "far_chain",
    "nbd": "nbd",
    "physical": "physical",
    "rescue": "rescue",
    "blockmap": "blockmap",
}
"""Module, and the name in it where it is not TARGET."""


def target(name: str) -> Target:
    module, _, member = TARGETS[name].partition(":")
    found = getattr(import_module(f"tools.fuzz.readers.{module}"), member or "TARGET")
    assert isinstance(found, Target)
    return found
