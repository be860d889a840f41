"""Matrix products of a warp from registers (mma), and of a warpgroup with operands in shared memory (wgmma)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from .arithmetic import Step
from .formats import WIDEN, Values, cut_to_tf32, high, low
from .operands import Mask, elements, read, write
from .program import Fault, Instruction

if TYPE_CHECKING:
    from .machine import Threads

WARPGROUP = 128
# Swizzle mode of a descriptor -> contiguous bytes of each of eight rows.
SWIZZLED_ROW = {0: 16, 1: 128, 2: 64, 3: 32}


def place_operand(matrix: Values, registers: list[Values], kind: str, rows: Values, columns: Values) -> None:
    """Fill matrices (..., rows, k) from fragments (..., threads): register i is 8 rows on if odd, half of k on if > 1.

    `rows` is each thread's first row, `columns` its position among four in k.
    """
    for index, values in enumerate(registers):
        row, half = rows + 8 * (index % 2), index // 2
        if kind == "tf32":
            matrix[..., row, columns + 4 * half] = cut_to_tf32(values)
        else:
            matrix[..., row, 2 * columns + 8 * half] = WIDEN[kind](low(values))
            matrix[..., row, 2 * columns + 8 * half + 1] = WIDEN[kind](high(values))


def product(left: Values, right: Values, added: Values) -> Values:
    """Return left right^T + added, rounded to float32 once."""
    return (left.astype(np.float64) @ right.astype(np.float64).swapaxes(-1, -2) + added).astype(np.float32)


def warp_product(instruction: Instruction) -> Step:
    """Return the step of mma.m16n8k16 of 16 bits or mma.m16n8k8 of TF32.

    Raises:
        Fault: another shape or type.
    """
    shape, kind = instruction.parts[3], instruction.parts[7]
    if (shape, kind) not in (("m16n8k16", "bf16"), ("m16n8k16", "f16"), ("m16n8k8", "tf32")):
        raise Fault(f"unknown: {instruction.text}")
    depth = int(shape.rpartition("k")[2])
    target, *sources = (elements(operand) for operand in instruction.operands)
    puts = [write(name) for name in target]
    left, right, added = ([read(name, "b32") for name in names] for names in sources)
    lane = np.arange(32)
    row, column = lane // 4, lane % 4

    def step(threads: Threads, mask: Mask) -> None:
        warps = threads.count // 32
        a, b, c = (np.zeros((warps, *sides), dtype=np.float32) for sides in ((16, depth), (8, depth), (16, 8)))
        place_operand(a, [get(threads).reshape(warps, 32) for get in left], kind, row, column)
        # the next register is half of k further on here, because there are no 8 further rows
        halves = [get(threads).reshape(warps, 32) for get in right]
        for half, values in enumerate(halves):
            place_operand(b[..., half * depth // 2 :], [values], kind, row, column)
        for index, get in enumerate(added):
            c[:, row + 8 * (index // 2), 2 * column + index % 2] = get(threads).view(np.float32).reshape(warps, 32)
        result = product(a, b, c)
        for index, put in enumerate(puts):
            put(threads, result[:, row + 8 * (index // 2), 2 * column + index % 2].reshape(-1), mask)

    return step


def operand_in_shared_memory(
    descriptor: int, threads: Threads, rows: int, depth: int, size: int, by_row: bool
) -> Values:
    """Read the matrix (rows, depth) of a wgmma descriptor, elements of `size` bytes; `by_row`: rows are adjacent.

    Rows are the rows of A or the columns of B. The canonical layouts are those of the PTX documentation's section on
    asynchronous warpgroup matrices: blocks of 8 lines of one swizzled row each.

    Raises:
        Fault: a descriptor with a base offset, or a matrix deeper than its swizzled row.
    """
    begin, leading, stride = ((descriptor >> shift & 0x3FFF) << 4 for shift in (0, 16, 32))
    mode = descriptor >> 62
    if descriptor >> 49 & 7:
        raise Fault("a descriptor with a base offset")
    i, k = np.arange(rows)[:, None], np.arange(depth)[None, :]
    together = SWIZZLED_ROW[mode] // size
    if by_row:
        along, across = (leading, stride) if mode else (stride, leading)
        offset = i // together * along + i % together * size + k // 8 * across + k % 8 * SWIZZLED_ROW[mode]
    else:
        if mode and depth > together:
            raise Fault("a matrix deeper than its swizzled row")
        offset = i // 8 * stride + i % 8 * SWIZZLED_ROW[mode] + k // together * leading + k % together * size
    place = begin + offset
    bits = SWIZZLED_ROW[mode] // 16 - 1
    return threads.block.memory["shared"].load(place ^ ((place >> 7 & bits) << 4), size)[..., 0]


def warpgroup_product(instruction: Instruction) -> Step:
    """Return the step of wgmma.mma_async: it reads operands at once, and the result is NaN until it is waited for.

    Raises:
        Fault: another shape or type, or operands that differ between threads.
    """
    if "fence" in instruction.parts:
        return lambda threads, mask: None
    if "commit_group" in instruction.parts:
        return lambda threads, mask: threads.commit_products()
    if "wait_group" in instruction.parts:
        pending = int(instruction.operands[0])
        return lambda threads, mask: threads.wait_for_products(pending)
    kind = instruction.parts[6]
    size = re.fullmatch(r"m64n(\d+)k(\d+)", instruction.parts[4])
    accumulators, left, right, accumulate, *numbers = instruction.operands
    signs, transposed = numbers[:2], [number == "1" for number in numbers[2:]]
    if size is None or kind not in ("bf16", "f16", "tf32") or signs != ["1", "1"]:
        raise Fault(f"unknown: {instruction.text}")
    columns, depth, names = int(size[1]), int(size[2]), elements(accumulators)
    element = 4 if kind == "tf32" else 2
    in_registers = left.startswith("{")
    right_by_row = transposed[-1] if transposed else False
    left_by_row = transposed[0] if transposed and not in_registers else False
    fragment = [read(name, "b32") for name in elements(left)] if in_registers else []
    descriptors = [read(name, "b64") for name in ([right] if in_registers else [right, left])]
    adds = read(accumulate, "pred")
    thread = np.arange(WARPGROUP)
    row, column = 16 * (thread // 32) + thread % 32 // 4, thread % 4
    widen = WIDEN.get(kind, cut_to_tf32)

    def one(threads: Threads, group: slice) -> None:
        def common(values: Values) -> int:
            if (values[group] != values[group][0]).any():
                raise Fault("threads of a warpgroup disagree")
            return int(values[group][0])

        places = [common(get(threads)) for get in descriptors]
        b = widen(operand_in_shared_memory(places[0], threads, columns, depth, element, right_by_row))
        if in_registers:
            a = np.zeros((64, depth), dtype=np.float32)
            place_operand(a, [get(threads)[group] for get in fragment], kind, row, column)
        else:
            a = widen(operand_in_shared_memory(places[1], threads, 64, depth, element, left_by_row))
        c = np.zeros((64, columns), dtype=np.float32)
        spots = [(row + 8 * (index // 2 % 2), 8 * (index // 4) + 2 * column + index % 2) for index in range(len(names))]
        if common(adds(threads)):
            for name, spot in zip(names, spots, strict=True):
                c[spot] = threads.accumulator(name, group)
        result = product(a, b, c)
        for name, spot in zip(names, spots, strict=True):
            threads.start_product(name, group, result[spot])

    def step(threads: Threads, mask: Mask) -> None:
        for first in range(0, threads.count, WARPGROUP):
            if mask is None or mask[first]:
                one(threads, slice(first, first + WARPGROUP))

    return step
