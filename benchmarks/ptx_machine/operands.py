"""Operands of an instruction as functions over threads: what it reads, where it writes, which addresses it accesses."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from .formats import Values
from .program import Fault

if TYPE_CHECKING:
    from .machine import Threads

# Which threads execute an instruction; None is all.
Mask = Values | None
Read = Callable[["Threads"], Values]
Write = Callable[["Threads", Values, Mask], None]

DTYPES: dict[str, Any] = {
    "pred": np.bool_, "f32": np.float32, "f64": np.float64, "b8": np.uint8, "b16": np.uint16,
    "bf16": np.uint16, "f16": np.uint16, "bf16x2": np.uint32, "f16x2": np.uint32, "b32": np.uint32, "b64": np.uint64,
    **{f"s{bits}": np.dtype(f"int{bits}").type for bits in (8, 16, 32, 64)},
    **{f"u{bits}": np.dtype(f"uint{bits}").type for bits in (8, 16, 32, 64)},
}  # fmt: skip
# What registers and shared memory hold before they are written: NaN in every floating-point format.
UNWRITTEN = {np.bool_: True, np.uint16: 0x7FFF, np.uint32: 0x7FFF7FFF, np.uint64: 0x7FFF7FFF7FFF7FFF}
# Where shared memory begins; what is below stands for what the driver keeps there.
SHARED_BASE = 1024


def register_dtype(name: str) -> Any:
    """The dtype of a register, by its name.

    Raises:
        Fault: it is no register.
    """
    for prefix, dtype in (("%rd", np.uint64), ("%rs", np.uint16), ("%r", np.uint32), ("%p", np.bool_)):
        if re.fullmatch(rf"{prefix}\d+", name):
            return dtype
    raise Fault(f"{name} is no register")


def special(name: str, threads: Threads) -> Values:
    """%tid.x and its kin, one value a thread.

    Raises:
        Fault: it is no such register.
    """
    if name == "%tid.x":
        return threads.index
    what, _, axis = name.partition(".")
    values = {"%ctaid": threads.block.position, "%nctaid": threads.block.grid}.get(what)
    if values is None:
        raise Fault(f"{name} is no register")
    return np.full(threads.count, values["xyz".index(axis)])


def constant(text: str, kind: str) -> Any:
    """A literal, or the address of shared memory."""
    dtype = DTYPES[kind]
    if text.startswith("0f"):
        return np.uint32(int(text[2:], 16)).view(dtype)
    text = text.removesuffix("U")
    if text.startswith("global_smem"):
        return dtype(SHARED_BASE + int(text.partition("+")[2] or 0))
    if kind == "pred":
        return np.bool_(int(text, 0) != 0)
    bits = 8 * np.dtype(dtype).itemsize
    return np.array(int(text, 0) % (1 << bits), dtype=f"uint{bits}").view(dtype)[()]


def read(operand: str, kind: str) -> Read:
    """The value of an operand, (threads,) of the dtype of `kind`; a register that is wider is cut.

    Raises:
        Fault: a register that is narrower.
    """
    dtype = DTYPES[kind]
    if "." in operand and operand.startswith("%"):
        return lambda threads: special(operand, threads).astype(dtype)
    if not operand.startswith("%"):
        value = constant(operand, kind)
        return lambda threads: np.full(threads.count, value)
    own, size = register_dtype(operand), np.dtype(dtype).itemsize
    if np.dtype(own).itemsize < size:
        raise Fault(f"{operand} is read as {kind}")

    def get(threads: Threads) -> Values:
        values = threads.registers.get(operand)
        if values is None:
            values = np.full(threads.count, own(UNWRITTEN[own]))
        return values.view(dtype) if values.itemsize == size else values.astype(f"uint{8 * size}").view(dtype)

    return get


def write(operand: str) -> Write:
    """Set a register in the threads of a mask; narrower values are extended by their sign, if they have one."""
    if operand == "_":
        return lambda threads, values, mask: None
    dtype = register_dtype(operand)
    size = np.dtype(dtype).itemsize

    def put(threads: Threads, values: Values, mask: Mask) -> None:
        if values.dtype != dtype:
            if values.itemsize < size:
                values = values.astype(f"{'int' if values.dtype.kind == 'i' else 'uint'}{8 * size}")
            if values.itemsize != size:
                raise Fault(f"{values.dtype} does not fit {operand}")
            values = values.view(dtype)
        if mask is not None:
            values = np.where(mask, values, threads.registers.get(operand, dtype(UNWRITTEN[dtype])))
        threads.registers[operand] = values

    return put


def elements(operand: str) -> list[str]:
    """The operands of a vector {a, b}, or the operand itself."""
    return [element.strip() for element in operand.strip("{}").split(",")]


def address(operand: str) -> Read:
    """[register + offset] as int64.

    Raises:
        Fault: it is no address.
    """
    match = re.fullmatch(r"\[\s*([%\w]+)\s*(?:\+\s*(-?\d+))?\s*\]", operand)
    if match is None:
        raise Fault(f"{operand} is no address")
    offset = int(match[2] or 0)
    if not match[1].startswith("%"):
        place = int(constant(match[1], "u32")) + offset
        return lambda threads: np.full(threads.count, place)
    base = read(match[1], "u64" if match[1].startswith("%rd") else "u32")
    return lambda threads: base(threads).astype(np.int64) + offset
