"""VMDK in all its kinds: descriptor, sparse and flat extents, reading, writing."""
