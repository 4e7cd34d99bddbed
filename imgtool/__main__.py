"""``python -m imgtool``, and the program ``imgtool``."""

from __future__ import annotations

import signal
from typing import NoReturn


def main() -> NoReturn:
    """Until the command line listens for signals, Ctrl-C ends the program without a word, as it ends any other."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from imgtool.cli.app import main as run

    run()


if __name__ == "__main__":
    main()
