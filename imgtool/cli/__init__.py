"""The command line: typer only, no work of its own."""
