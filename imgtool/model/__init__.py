"""The types that cross folders. Read this first; nothing in here does anything.

image    what a disk image is: layers, extents, allocation
request  what is asked for
result   what the commands say at their end
problem  what cannot be carried over
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
