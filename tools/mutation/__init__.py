"""Do the fast tests notice when the program is changed? A sample of small changes, each tried by itself.

::

    make mutants MINUTES=30
    python -m tools.mutation --minutes 30 [--seed N] [formats copying descriptions]

``operators`` finds the places of a module that can be changed (a comparison, a number, a condition, a call left out) and changes
one; ``chart`` knows which tests run which line; ``runner`` runs those, and then all tests of ``KILLERS``, in a copy of the tree
with that change. A change that no test notices *survives*: it is printed, and either means the same as before, or shows what is
not tested.

Rejected: mutmut makes every change there is before the first test, and draws no sample by a seed; cosmic-ray starts pytest anew
for each change. Here pytest and the libraries are loaded once, and forked.
"""
