"""The durable engine of runbooks: DBOS Transact, on SQLite for one machine, on PostgreSQL for many.

Nothing else imports ``dbos``.

::

    queue        limit                        workflow
    batches      –                            batch     its waves, one after the other
    vms          per worker                   machine   id BATCH/MACHINE; its parts, one after the other
    sources-N    N for each source host       slot      holds a place at the source host …
    targets-N    N for each target host       slot      … and at the target host, where that is limited …
    work-SEES    per worker                   slot      … and does the step, on a worker that sees the storage
    host-WORKER  per worker                   slot      the same, of a lost worker: handed over to this one

A holder of a place waits only for those to the right: there is no deadlock. Who loses its place (its worker was killed) is the
oldest in the queue, and gets it again before any other.

``workflows``  the workflows and their steps: one for each disk that is copied, one for the rest
``doing``      a thread that does a part; the steps wait for it
``worker``     a process that takes work, and its threads
``identity``   who it is: no two at a time
``store``      submit, look, cancel, pause, resume, retry: from any process
"""
