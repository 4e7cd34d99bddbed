"""Windows guests: their registry and their drivers, offline. No Windows can be started here: nothing of this is boot-tested."""

from imgtool.guests.windows.adapt import adapt
from imgtool.guests.windows.inspect import inspect

__all__ = ["adapt", "inspect"]
