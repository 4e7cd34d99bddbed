"""Linux guests: what is inside, and what has to change so that they boot on other hardware.

No program of the guest is run. ``inspect`` and ``adapt`` are the two ways in; each other file knows one subject.
"""
