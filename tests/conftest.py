"""What every test needs of its surroundings."""

from __future__ import annotations

import os
import signal

from hypothesis import settings

# A shell starts what it puts into the background with SIGINT ignored, and a program keeps that: the tests send it on purpose.
signal.signal(signal.SIGINT, signal.default_int_handler)
# The program is started some thousand times: it may keep its compiled modules.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
# How long an example takes says how busy the machine is.
settings.register_profile("imgtool", deadline=None)
settings.load_profile("imgtool")
