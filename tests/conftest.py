"""What every test needs of its surroundings."""

from __future__ import annotations

import os
import signal

from hypothesis import settings

# A shell starts what it puts into the background with SIGINT ignored, and a program keeps that: the tests send it on purpose.
signal.signal(signal.SIGINT, signal.default_int_handler)
# The program is started some thousand times: it may keep its compiled modules.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
# The machine that runs them may be busy: no test has a time of its own.
settings.register_profile("imgtool", deadline=None)
settings.load_profile("imgtool")
