"""Measurements of the kernels, each a command `python -m benchmarks.NAME --json FILE`."""
