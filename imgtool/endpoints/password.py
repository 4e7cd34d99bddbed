"""Where passwords come from: a file, the environment, a prompt. Never an argument."""

from __future__ import annotations

import getpass
import os
import sys

from imgtool.errors import UnreachableError, UsageError

VARIABLE = "IMGTOOL_PASSWORD"
MAX_PASSWORD = 4096
"""Bytes."""


def password(who: str, file: str | None) -> str:
    """The password of ``who`` (``root@esxi1``, for the prompt and for messages). Raises UsageError, UnreachableError."""
    if file is not None:
        return _from_file(file)
    if (found := os.environ.get(VARIABLE)) is not None:
        return found
    if not sys.stdin.isatty():
        raise UnreachableError(f"there is no password for {who}", f"--password-file FILE, or {VARIABLE} in the environment")
    return getpass.getpass(f"Password of {who}: ")


def _from_file(path: str) -> str:
    """The first line."""
    try:
        with open(path, "rb") as file:
            raw = file.read(MAX_PASSWORD + 1)
        text = raw.decode()
    except OSError as error:
        raise UsageError(f"the password file {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError:
        raise UsageError(f"the password file {path} is not UTF-8") from None
    if len(raw) > MAX_PASSWORD:
        raise UsageError(f"the password file {path} is longer than any password")
    return text.split("\n", 1)[0].removesuffix("\r")
