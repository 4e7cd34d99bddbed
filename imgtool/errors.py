"""Every way in which imgtool fails, and the exit code that each has.

The table ``EXIT_CODES`` is the contract's; ``docs/reference`` and ``--help`` are made from it.
"""

from __future__ import annotations


class ImgtoolError(Exception):
    """What happened to which thing; ``hint`` says what to do next. Exit code 1."""

    exit_code = 1

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(ImgtoolError):
    """Wrong use of the command line, or a request that no format can hold."""

    exit_code = 2


class DifferError(ImgtoolError):
    """Two images, or a checksum and its image, are not the same."""

    exit_code = 3


class RefusedError(ImgtoolError):
    """Refused, to keep data safe."""

    exit_code = 4


class LockedError(RefusedError):
    """A volume is encrypted, and no key fits."""


class DamagedError(ImgtoolError):
    """The input is damaged or not what it says it is."""

    exit_code = 5


class MissingToolError(ImgtoolError):
    """A tool or library that this needs is missing."""

    exit_code = 6


ENGINE_HINT = "in imgtool's folder: pipx install --force --system-site-packages '.[batch]'"
"""How to get the engine of ``run`` and ``worker``: imgtool is on no index."""


class NoSpaceError(ImgtoolError):
    """No space left where the result goes."""

    exit_code = 7


class UnreachableError(ImgtoolError):
    """The other machine cannot be reached, or did not let us in."""

    exit_code = 8


class NotAdmittedError(UnreachableError):
    """The other machine was reached, and did not let us in: another try ends likewise, or locks the account."""


class StoppedError(ImgtoolError):
    """SIGINT or SIGTERM; ``exit_code`` is 128 + the signal's number."""

    def __init__(self, signum: int, left: str = "nothing was left under a final name", hint: str | None = None) -> None:
        super().__init__(f"interrupted; {left}", hint)
        self.signum = signum
        self.exit_code = 128 + signum


EXIT_CODES: dict[int, str] = {
    0: "done",
    1: "the operation failed",
    2: "wrong use of the command line or the runbook",
    3: "the images, or the checksum and the image, differ",
    4: "refused, to keep data safe",
    5: "the input is damaged or not what it says it is",
    6: "a tool or library that this needs is missing",
    7: "no space left",
    8: "the other machine cannot be reached, or did not let us in",
    130: "interrupted by SIGINT",
    143: "interrupted by SIGTERM",
}


def text_of(error: BaseException) -> str:
    """What it says, else what it is: some of Python's and of libraries come without a word."""
    return str(error) or type(error).__name__
