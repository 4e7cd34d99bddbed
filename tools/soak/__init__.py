"""An hour of what happens to a program that is used: random conversions and migrations, kills, full disks, bad sectors.

::

    make soak MINUTES=60
    python -m tools.soak --minutes 60 [--seed N]
    python -m tools.soak --seed N --round M          that round again

Each round is one trial of ``trials.TRIALS``, in a folder of its own, drawn from the seed and its number. What must hold is in
``trial``: an exit code of the contract, no traceback; the source as it was; what stands under a final name is whole (QEMU reads
what a guest wrote); the next run succeeds, and leaves nothing but its own files. ``convert`` and ``migrate`` have the trials.
"""
