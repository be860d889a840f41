"""Triton launches without a GPU: its launcher runs as usual, with a stub driver that only records launches.

    driver.c    the functions of libcuda.so.1 that Triton calls
    activate    builds it, and makes Triton use it

The package's host code is the same on every machine, but driver arguments, the time of compilations and the host time
of a call can be observed only if Triton launches. Needs a C compiler, as Triton's launcher does.
"""
