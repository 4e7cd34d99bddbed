"""The ways to move a disk's bytes, cheapest first."""
