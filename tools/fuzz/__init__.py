"""Fuzzing of every reader of bytes that are not ours.

::

    make fuzz SECONDS=600           all targets, SECONDS together
    python -m tools.fuzz qcow2 --seconds 600 [--seed N]
    python -m tools.fuzz qcow2 build/fuzz/qcow2/found-…       reads such inputs again, with the traceback

One small module a reader in ``readers/``, listed in ``targets``. The property: whatever the bytes are, nothing but ImgtoolError
escapes, in a second or two of processor time, without hundreds of MiB; and what a reader's own oracle says (a map without gaps,
the bytes that QEMU reads, a description that is read as it was written). ``watch`` holds that, ``child`` is the process in
which atheris (libFuzzer) makes the inputs by coverage, ``__main__`` starts it and reports.

Inputs that found something, and those that reach new code, are kept in ``build/fuzz/NAME``: the next run begins with them.
"""
