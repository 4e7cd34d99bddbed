"""qcow2: header, reading, writing. Specification: docs/interop/qcow2.txt of QEMU."""
