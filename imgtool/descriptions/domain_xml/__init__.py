"""libvirt's domain XML: ``virsh dumpxml`` in, ``virsh define`` out.

::

    document   bytes → tree, safely; which parts were read     ┐
    read_*     elements → Machine                              ├ read.parse
    noise      what was not read: silently left, or a problem  ┘
    write_*    Machine → elements                              ┐
    patch      the difference of two of them → edits of a text ├ write.render
    held       fields that have a place, and hints             ┘
    words      libvirt's words and ours
"""

from __future__ import annotations

from imgtool.descriptions.domain_xml.held import HOLDS
from imgtool.descriptions.domain_xml.patch import without_secrets
from imgtool.descriptions.domain_xml.read import parse
from imgtool.descriptions.domain_xml.write import render

__all__ = ["HOLDS", "parse", "render", "without_secrets"]
