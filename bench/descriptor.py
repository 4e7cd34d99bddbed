"""The descriptor of a flat VMDK. Without numpy, for the process whose memory must stay small."""

from __future__ import annotations

from pathlib import Path


def flat_descriptor(path: Path, flat: Path) -> Path:
    """As ESXi writes it, for a file beside it."""
    path.write_text(
        "# Disk DescriptorFile\nversion=1\nencoding=\"UTF-8\"\nCID=4d3f2a1b\nparentCID=ffffffff\ncreateType=\"vmfs\"\n\n"
        f"RW {flat.stat().st_size // 512} VMFS \"{flat.name}\"\n\nddb.adapterType = \"lsilogic\"\nddb.thinProvisioned = \"1\"\n"
        "ddb.virtualHWVersion = \"8\"\n", encoding="utf-8")
    return path
