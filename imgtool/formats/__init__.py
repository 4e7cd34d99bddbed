"""What an image file is: one module (or folder) a format, and one line here.

``open_*`` turns an opened file into a ``Layer``. ``detect`` finds the format by the header; ``disk`` puts a chain together.
"""

from imgtool.formats.foreign import open_vdi, open_vhdx, open_vpc
from imgtool.formats.layer import OpenFormat
from imgtool.formats.qcow2.read import open_qcow2
from imgtool.formats.raw import open_raw
from imgtool.formats.vmdk.read import open_vmdk

FORMATS: dict[str, OpenFormat] = {
    "raw": open_raw,
    "qcow2": open_qcow2,
    "vmdk": open_vmdk,
    "vhdx": open_vhdx,
    "vpc": open_vpc,
    "vdi": open_vdi,
}
