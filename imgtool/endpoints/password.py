"""Where passwords come from: a file, the environment, a command, a prompt. Never an argument."""

from __future__ import annotations

import getpass
import os
import sys
from collections.abc import Sequence
from contextlib import suppress

from imgtool.errors import NotAdmittedError, UsageError
from imgtool.model.endpoint import Credentials
from imgtool.progress import Stop, ends_at_once

VARIABLE = "IMGTOOL_PASSWORD"
COMMAND_SECONDS, COMMAND_MEMORY = 60, 4 << 30
MAX_PASSWORD = 4096
"""Bytes."""


def password(who: str, credentials: Credentials, stop: Stop | None = None) -> str:
    """The password of ``who`` (``root@esxi1``, for the prompt and for messages). ``stop``: of a command that prints it.

    Raises UsageError, UnreachableError, StoppedError.
    """
    if credentials.password_file is not None:
        return _from_file(credentials.password_file)
    if credentials.password_env is not None:
        return _from_variable(credentials.password_env)
    if credentials.password_command:
        return _from_command(credentials.password_command, stop or Stop())
    if (found := os.environ.get(VARIABLE)) is not None:
        return found
    with suppress(EOFError), ends_at_once():  # Control-D
        if sys.stdin.isatty():
            return getpass.getpass(f"Password of {who}: ")
    raise NotAdmittedError(f"there is no password for {who}",
                           f"--password-file FILE (in a runbook password: {{file: FILE}}), or {VARIABLE} in the environment")


def _from_variable(name: str) -> str:
    if (found := os.environ.get(name)) is None:
        raise UsageError(f"the password is said to be in the variable {name}, which is not set", f"export {name}=…")
    return found


def _from_command(argv: Sequence[str], stop: Stop) -> str:
    """The first line that it prints; what it says beside that is not repeated."""
    from imgtool import proc

    try:
        done = proc.run(argv, stop=stop, limits=proc.Limits(seconds=COMMAND_SECONDS, memory=COMMAND_MEMORY))
    except proc.TooLongError:
        raise UsageError(f"{argv[0]}, which shall print a password, did not end within {COMMAND_SECONDS} s",
                         "does it ask something? Run it by hand") from None
    if done.returncode or not done.stdout.strip():
        raise UsageError(f"{argv[0]}, which shall print a password, ended with {done.returncode}", "run it by hand")
    return done.stdout.split("\n", 1)[0].removesuffix("\r")


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
