"""Network configuration, one file for each system that keeps it: which interfaces it names, and which MAC addresses it ties.

Each module has ``SYSTEM``, ``files(tree)`` (where its configuration stands) and ``read(tree)``. None imports another.
"""
