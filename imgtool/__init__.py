"""imgtool: disk images and machines, converted and moved in every direction.

Read ``imgtool.model`` first, then ``docs/architecture.md``.
"""

__version__ = "0.1.0"
