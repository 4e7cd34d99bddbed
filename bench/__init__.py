"""Benchmarks: `make bench`, or `python -m bench`. They write bench/RESULTS.md."""
