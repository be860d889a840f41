"""Operands of an instruction as functions over threads: values read, registers written, and addresses."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from .formats import Values
from .program import Fault

if TYPE_CHECKING:
    from .machine import Threads

# The threads that execute an instruction; None means all.
Mask = Values | None
Read = Callable[["Threads"], Values]
Write = Callable[["Threads", Values, Mask], None]

DTYPES: dict[str, Any] = {
    "pred": np.bool_, "f32": np.float32, "f64": np.float64, "b8": np.uint8, "b16": np.uint16,
    "bf16": np.uint16, "f16": np.uint16, "bf16x2": np.uint32, "f16x2": np.uint32, "b32": np.uint32, "b64": np.uint64,
    **{f"s{bits}": np.dtype(f"int{bits}").type for bits in (8, 16, 32, 64)},
    **{f"u{bits}": np.dtype(f"uint{bits}").type for bits in (8, 16, 32, 64)},
}  # fmt: skip
# The content of unwritten registers and shared memory: NaN in every floating-point format.
UNWRITTEN = {np.bool_: True, np.uint16: 0x7FFF, np.uint32: 0x7FFF7FFF, np.uint64: 0x7FFF7FFF7FFF7FFF}
# Where shared memory begins; addresses below it represent memory reserved by the driver.
SHARED_BASE = 1024


def register_dtype(name: str) -> Any:
    """Return the dtype of a register by its name.

    Raises:
        Fault: it is not a register.
    """
    for prefix, dtype in (("%rd", np.uint64), ("%rs", np.uint16), ("%r", np.uint32), ("%p", np.bool_)):
        if re.fullmatch(rf"{prefix}\d+", name):
            return dtype
    raise Fault(f"{name} is no register")


def special(name: str, threads: Threads) -> Values:
    """Return a special register such as %tid.x, one value a thread.

    Raises:
        Fault: it is not a special register.
    """
    if name == "%tid.x":
        return threads.index
    what, _, axis = name.partition(".")
    values = {"%ctaid": threads.block.position, "%nctaid": threads.block.grid}.get(what)
    if values is None:
        raise Fault(f"{name} is no register")
    return np.full(threads.count, values["xyz".index(axis)])


def constant(text: str, kind: str) -> Any:
    """Return the value of a literal, or the address of shared memory."""
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
    """Return a function that reads an operand, (threads,) of the dtype of `kind`; a wider register is truncated.

    Raises:
        Fault: the register is narrower.
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
    """Return a function that sets a register in the threads of a mask; narrower signed values are sign-extended."""
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
    """Return the operands of a vector {a, b}, or the operand itself."""
    return [element.strip() for element in operand.strip("{}").split(",")]


def address(operand: str) -> Read:
    """Return a function that computes [register + offset] as int64.

    Raises:
        Fault: it is not an address.
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
