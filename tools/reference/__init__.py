"""Manual pages and reference, written from the code: ``make reference`` (``python -m tools.reference``) writes them.

``tree``     the commands of the program, as plain values
``man``      a command → its manual page (man(7))
``pages``    commands, exit codes, rules of preflight, keys of a runbook → Markdown

What is written is committed: a wheel is built without the program's libraries. A test fails when it is out of date.
"""
