"""Shared and global memory, and the instructions that access them."""

from __future__ import annotations

import ctypes
import re
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from .arithmetic import Step
from .formats import Values, high, low, pair
from .operands import DTYPES, SHARED_BASE, UNWRITTEN, Mask, address, elements, read, write
from .program import Fault, Instruction

if TYPE_CHECKING:
    from .machine import Threads

# Start of this process's memory without its first page, where no array can begin.
ORIGIN = 4096
PROCESS = np.frombuffer(memoryview((ctypes.c_uint8 * (1 << 48)).from_address(ORIGIN)), dtype=np.uint8)
SomeMemory = TypeVar("SomeMemory", bound="Memory")


class Memory:
    """A part of memory by byte addresses: `data` begins at `origin`; valid ranges are [starts, ends), sorted."""

    def __init__(self, data: Values, origin: int, ranges: list[tuple[int, int]]) -> None:
        self.views = {size: data.view(f"uint{8 * size}") for size in (1, 2, 4, 8)}
        self.origin = origin
        self.starts, self.ends = np.array(ranges, dtype=np.int64).reshape(-1, 2).T

    @classmethod
    def of_process(cls: type[SomeMemory], ranges: list[tuple[int, int]]) -> SomeMemory:
        """Return the memory of this process, within these ranges of addresses."""
        return cls(PROCESS, ORIGIN, sorted(ranges))

    @classmethod
    def shared(cls: type[SomeMemory], size: int) -> SomeMemory:
        """Return a program's shared memory, unwritten."""
        end = SHARED_BASE + size
        words = np.full(-(-end // 8), UNWRITTEN[np.uint64], dtype=np.uint64)
        return cls(words.view(np.uint8), 0, [(SHARED_BASE, end)])

    def _places(self, addresses: Values, size: int, vector: int) -> Values:
        """Check accesses to vectors of `vector` elements; return indices into the view of `size` bytes an element."""
        if (addresses % (size * vector)).any():
            raise Fault("a misaligned access")
        nearest = np.searchsorted(self.starts, addresses, side="right") - 1
        if (nearest < 0).any() or (addresses + size * vector > self.ends[nearest]).any():
            raise Fault("an access outside")
        return ((addresses - self.origin) // size)[..., None] + np.arange(vector)

    def load(self, addresses: Values, size: int, vector: int = 1) -> Values:
        """Load (..., vector) elements of `size` bytes."""
        return self.views[size][self._places(addresses, size, vector)]

    def store(self, addresses: Values, values: Values) -> None:
        """Write (..., vector) elements."""
        self.views[values.itemsize][self._places(addresses, values.itemsize, values.shape[-1])] = values

    def forget(self, addresses: Values, words: int) -> None:
        """Mark `words` words of 4 bytes as unwritten."""
        self.views[4][self._places(addresses, 4, words)] = UNWRITTEN[np.uint32]


def chosen(mask: Mask, count: int) -> Values:
    """Return the indices of the threads in a mask."""
    return np.arange(count) if mask is None else np.flatnonzero(mask)


def load(instruction: Instruction) -> Step:
    """Return the step of ld.param, ld.shared or ld.global, of one element or a vector; cache hints are ignored."""
    space, kind, (target, place, *_) = instruction.parts[1], instruction.parts[-1], instruction.operands
    puts = [write(name) for name in elements(target)]
    if space == "param":
        name = place.strip("[]")

        def parameter(threads: Threads, mask: Mask) -> None:
            bits = 8 * np.dtype(DTYPES[kind]).itemsize
            value = np.array(threads.block.parameters[name] % (1 << bits), dtype=f"uint{bits}").view(DTYPES[kind])
            puts[0](threads, np.full(threads.count, value), mask)

        return parameter
    where, size = address(place), np.dtype(DTYPES[kind]).itemsize

    def step(threads: Threads, mask: Mask) -> None:
        selected = chosen(mask, threads.count)
        loaded = threads.block.memory[space].load(where(threads)[selected], size, len(puts))
        for index, put in enumerate(puts):
            values = np.zeros(threads.count, dtype=loaded.dtype)
            values[selected] = loaded[:, index]
            put(threads, values, mask)

    return step


def store(instruction: Instruction) -> Step:
    """Return the step of st.shared or st.global; cache hints are ignored."""
    space, kind, (place, source, *_) = instruction.parts[1], instruction.parts[-1], instruction.operands
    where, gets = address(place), [read(name, kind) for name in elements(source)]

    def step(threads: Threads, mask: Mask) -> None:
        selected = chosen(mask, threads.count)
        values = np.stack([get(threads) for get in gets], axis=-1)
        threads.block.memory[space].store(where(threads)[selected], values[selected])

    return step


def asynchronous_copy(instruction: Instruction) -> Step:
    """Return the step of cp.async: it reads global memory at once; shared memory is unwritten until awaited.

    If the fourth operand is 0, zeros are copied and global memory is not accessed.
    """
    if "commit_group" in instruction.parts:
        return lambda threads, mask: threads.commit_copies()
    if "wait_group" in instruction.parts:
        pending = int(instruction.operands[0])
        return lambda threads, mask: threads.wait_for_copies(pending)
    to, source, width, *length = instruction.operands
    where, whence, size = address(to), address(source), int(width, 0)
    filled = read(length[0] if length else width, "u32")

    def step(threads: Threads, mask: Mask) -> None:
        selected = chosen(mask, threads.count)
        copied = filled(threads)[selected]
        if not np.isin(copied, (0, size)).all():
            raise Fault("a copy of a part")
        data = np.zeros((len(selected), size // 4), dtype=np.uint32)
        whole = copied == size
        data[whole] = threads.block.memory["global"].load(whence(threads)[selected][whole], 4, size // 4)
        places = where(threads)[selected]
        threads.block.memory["shared"].forget(places, size // 4)
        threads.start_copy(places, data)

    return step


def matrix_access(instruction: Instruction) -> Step:
    """Return the step of ldmatrix or stmatrix: 8 x 8 matrices of 16 bits, rows at addresses of eight threads each."""
    count = int(re.search(r"\.x([124])\b", instruction.opcode)[1])  # type: ignore[index]
    transposed, loading = "trans" in instruction.parts, instruction.parts[0] == "ldmatrix"
    registers, place = instruction.operands if loading else instruction.operands[::-1]
    where, names = address(place), elements(registers)
    puts, gets = [write(name) for name in names if loading], [read(name, "b32") for name in names if not loading]

    def rows(threads: Threads) -> Values:
        return where(threads).reshape(-1, 32)[:, : 8 * count].reshape(-1, count, 8)

    def step(threads: Threads, mask: Mask) -> None:
        if mask is not None:
            raise Fault("in a part of the threads")
        shared = threads.block.memory["shared"]
        if loading:
            matrices = shared.load(rows(threads), 2, 8)
            fragments = (matrices.swapaxes(2, 3) if transposed else matrices).reshape(-1, count, 32, 2)
            for index, put in enumerate(puts):
                put(threads, pair(fragments[:, index, :, 0], fragments[:, index, :, 1]).reshape(-1), None)
        else:
            values = [get(threads) for get in gets]
            fragments = np.stack([np.stack([low(v), high(v)], axis=-1).reshape(-1, 32, 2) for v in values], axis=1)
            matrices = fragments.reshape(-1, count, 8, 8)
            shared.store(rows(threads), matrices.swapaxes(2, 3) if transposed else matrices)

    return step


def shuffle(instruction: Instruction) -> Step:
    """Return the step of shfl, which reads a register of another thread of the warp.

    Raises:
        Fault: a mode other than bfly and idx over the whole warp.
    """
    mode, (target, source, selector, bound, _) = instruction.parts[2], instruction.operands
    put, value, select = write(target), read(source, "b32"), read(selector, "u32")
    if mode not in ("bfly", "idx") or bound != "31":
        raise Fault(f"unknown: {instruction.text}")

    def step(threads: Threads, mask: Mask) -> None:
        lane, by = threads.index % 32, select(threads).astype(np.int64)
        other = lane ^ by if mode == "bfly" else by % 32
        put(threads, value(threads)[np.arange(threads.count) - lane + other], mask)

    return step


def warp_sum(instruction: Instruction) -> Step:
    """Return the step of redux.sync.add, which gives the sum over a warp to all of its threads.

    Raises:
        Fault: another reduction.
    """
    if instruction.parts[2] != "add":
        raise Fault(f"unknown: {instruction.text}")
    put, value = write(instruction.operands[0]), read(instruction.operands[1], instruction.parts[-1])

    def step(threads: Threads, mask: Mask) -> None:
        values = value(threads).reshape(-1, 32)
        put(threads, np.repeat(values.sum(axis=1, dtype=values.dtype), 32), mask)

    return step
