"""The types that cross folders. Read this first; nothing in here does anything.

image    what a disk image is: layers, extents, allocation
request  what is asked for
result   what the commands say at their end
problem  what cannot be carried over

Imported by their own names, since most commands need nothing of them and start-up counts:

machine      what a machine is, whatever describes it
devices      what it is made of
description  what goes into and comes out of a ``.vmx``, a domain XML, an OVF
guest        what is inside a disk, and what it can drive
package      what an OVF package (a folder, an OVA) is made of
translation  what a move from one hypervisor to another is asked for, and what it gives
endpoint     where machines come from and go to; ``situation`` is what preflight looks at there, ``migration`` the whole way
metal        physical disks; ``partitions`` their tables, ``v2p`` what is written to them
runbook      what a batch is asked for; ``job`` what is known of work, done or under way
"""

from imgtool.model.image import (
    Allocation,
    Extent,
    FileInfo,
    ImageFile,
    ImageInfo,
    ImageSpec,
    Kind,
    Snapshot,
)
from imgtool.model.problem import Problem
from imgtool.model.request import AllocateRequest, ConvertRequest, SourceOptions
from imgtool.model.result import (
    AllocateResult,
    CheckResult,
    ConvertResult,
    CopyStats,
    Mapped,
    VerifyResult,
)

__all__ = [
    "AllocateRequest",
    "AllocateResult",
    "Allocation",
    "CheckResult",
    "ConvertRequest",
    "ConvertResult",
    "CopyStats",
    "Extent",
    "FileInfo",
    "ImageFile",
    "ImageInfo",
    "ImageSpec",
    "Kind",
    "Mapped",
    "Problem",
    "Snapshot",
    "SourceOptions",
    "VerifyResult",
]
