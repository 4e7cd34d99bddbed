"""The Open Virtualization Format: read as vSphere, Workstation, VirtualBox and oVirt write it (0.9 to 2), written as OVF 1.1.

Sources: DMTF DSP0243 (OVF), DSP0004 (units), DSP1043 (numbers of devices); the keys of ``vmw:Config`` as ovftool writes them.
"""

from __future__ import annotations

from imgtool.descriptions.ovf.hold import HOLDS
from imgtool.descriptions.ovf.keep import without_secrets
from imgtool.descriptions.ovf.package import files, sized
from imgtool.descriptions.ovf.read import parse
from imgtool.descriptions.ovf.write import render

__all__ = ["HOLDS", "files", "parse", "render", "sized", "without_secrets"]
