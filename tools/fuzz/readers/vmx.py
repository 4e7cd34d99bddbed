"""``.vmx``: read, changed in place, and translated."""

from __future__ import annotations

from tools.fuzz.descriptions import described
from tools.fuzz.target import Target

TARGET: Target = described(".vmx", words=(
    b".present", b"scsi0", b"sata0", b"ide1", b"nvme0", b"ethernet0", b"serial0", b"usb_xhci", b"pciPassthru0", b"floppy0",
    b"sharedFolder0", b".fileName", b".virtualDev", b".deviceType", b".address", b".networkName", b' = "TRUE"', b' = "FALSE"',
    b"|22", b"|0A", b".encoding", b'"shift_jis"', b'"utf-16"', b'"GBK"', b"guestOS", b"memsize", b"numvcpus",
    b"virtualHW.version", b"uuid.bios", b"99999999999999999999", b"-1", b"encryption.keySafe"))
