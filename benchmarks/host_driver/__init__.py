"""Triton's launches without a GPU: its launcher runs as on one, down to the driver, which only notes them.

    driver.c    what Triton calls of libcuda.so.1
    activate    builds it, and makes Triton use it

The kernels' own host side is the same on every machine, but what a launch passes to the driver, what is compiled when,
and how long the host takes for a call show only where Triton launches. Needs a C compiler, as Triton's launcher does.
"""
