"""One module a reader of bytes that are not ours. See ``tools.fuzz.targets``."""
