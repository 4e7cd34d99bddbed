"""Linux guests: what is inside, and what has to change so that they boot on other hardware.

``inspect`` and ``adapt`` run no program of the guest; ``commands`` says what ``--rebuild-initramfs`` would run.
"""

from imgtool.guests.linux.adapt import adapt, commands
from imgtool.guests.linux.inspect import inspect

__all__ = ["adapt", "commands", "inspect"]
