"""imgtool: disk images and machines, converted and moved in every direction.

Read ``imgtool.model`` first, then ``docs/architecture.md``.
"""

__version__: str


def __getattr__(name: str) -> str:
    """``__version__`` is what the package was built as, by git's tags; it takes 20 ms to find out."""
    if name != "__version__":
        raise AttributeError(name)
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("imgtool")
    except PackageNotFoundError:
        return "unknown"
