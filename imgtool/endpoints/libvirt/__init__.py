"""Machines of a libvirt host (QEMU/KVM), here or over ssh: ``connection``, ``inventory``, ``storage``, ``define``."""
