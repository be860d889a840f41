"""Threads in lockstep, the programs that they form, and a grid of programs."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .arithmetic import Step, arithmetic, comparison, conversion, move, multiplication
from .formats import Values
from .matrices import WARPGROUP, warp_product, warpgroup_product
from .memory import Memory, asynchronous_copy, load, matrix_access, shuffle, store, warp_sum
from .operands import UNWRITTEN, Mask, read
from .program import Fault, Instruction, Program

WARP = 32
FAMILIES: dict[str, Callable[[Instruction], Step]] = {
    "ld": load, "st": store, "cp": asynchronous_copy, "ldmatrix": matrix_access, "stmatrix": matrix_access,
    "shfl": shuffle, "redux": warp_sum, "mma": warp_product, "wgmma": warpgroup_product, "mov": move, "cvt": conversion,
    "setp": comparison, "mad": multiplication,
}  # fmt: skip
# How many threads have to execute these instructions together; -1 means all that run in lockstep.
TOGETHER = {"shfl": WARP, "redux": WARP, "ldmatrix": WARP, "stmatrix": WARP, "mma": WARP, "wgmma": WARPGROUP, "bar": -1}


def nothing(threads: Threads, mask: Mask) -> None:
    """Do nothing: for instructions that only order memory accesses, or warps in lockstep."""


@dataclass(frozen=True)
class Decoded:
    """A decoded instruction: `step` is None for those that end execution or change its position."""

    instruction: Instruction
    step: Step | None
    holds: Callable[[Threads], Values] | None
    together: int


def decode(instruction: Instruction) -> Decoded:
    """Decode an instruction.

    Raises:
        Fault: it is not supported.
    """
    name, parts = instruction.parts[0], instruction.parts
    step: Step | None
    together = TOGETHER.get(name, 0)
    if name in ("bra", "brx", "ret") or instruction.opcode == "bar.sync":
        step = None
        if name == "bar" and instruction.operands != ("0",):
            raise Fault(f"unknown: {instruction.text}")
    elif name in ("fence", "createpolicy") or instruction.opcode == "bar.warp.sync":
        step, together = nothing, 0
    elif name == "mul" and parts[1] in ("lo", "hi", "wide"):
        step = multiplication(instruction)
    else:
        step = FAMILIES.get(name, arithmetic)(instruction)
    if name == "cp" and parts[-1] in ("commit_group", "wait_group"):
        together = -1
    holds = read(instruction.predicate, "pred") if instruction.predicate else None
    if holds is not None and instruction.negated:
        positive = holds
        holds = lambda threads: ~positive(threads)  # noqa: E731
    return Decoded(instruction, step, holds, together)


class Code:
    """A program's instructions, decoded once for all of its runs."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.decoded = [decode(instruction) for instruction in program.instructions]
        opcodes = {instruction.parts[0] for instruction in program.instructions}
        # Warps run independently, or warpgroups if there is wgmma.
        self.in_step = WARPGROUP if "wgmma" in opcodes else WARP


class Threads:
    """`count` threads from `first` on that run in lockstep up to each barrier; registers by name, (count,) each.

    If they diverge, those that are behind run first, until they meet the others; an instruction that needs more threads
    than have arrived waits for the rest.
    """

    def __init__(self, block: Block, first: int, count: int) -> None:
        self.block = block
        self.count = count
        self.index = np.arange(first, first + count)
        self.registers: dict[str, Values] = {}
        self._next = np.zeros(count, dtype=np.int64)
        self._alive = np.ones(count, dtype=bool)
        self._copies: list[tuple[Values, Values]] = []
        self._copy_groups: deque[list[tuple[Values, Values]]] = deque()
        # (accumulator, first thread of the warpgroup) -> value and group of the pending product
        self._products: dict[tuple[str, int], tuple[Values, int]] = {}
        self._product_group = 0

    def start_copy(self, places: Values, data: Values) -> None:
        """Start a copy of data (threads, words) to shared memory."""
        self._copies.append((places, data))

    def commit_copies(self) -> None:
        """Close a group of copies."""
        self._copy_groups.append(self._copies)
        self._copies = []

    def wait_for_copies(self, pending: int) -> None:
        """Complete all groups of copies except the last `pending`."""
        while len(self._copy_groups) > pending:
            for places, data in self._copy_groups.popleft():
                self.block.memory["shared"].store(places, data)

    def accumulator(self, name: str, group: slice) -> Values:
        """Return a product's accumulator: the register, or the pending result of a product before it."""
        under_way = self._products.get((name, group.start))
        return under_way[0] if under_way else read(name, "f32")(self)[group]

    def start_product(self, name: str, group: slice, values: Values) -> None:
        """Start a product whose result goes to a register of a warpgroup."""
        self._products[name, group.start] = values, self._product_group
        self._set(name, group, np.full(len(values), UNWRITTEN[np.uint32], dtype=np.uint32))

    def commit_products(self) -> None:
        """Close a group of products."""
        self._product_group += 1

    def wait_for_products(self, pending: int) -> None:
        """Write the results of all groups of products except the last `pending`."""
        for (name, first), (values, group) in list(self._products.items()):
            if group < self._product_group - pending:
                del self._products[name, first]
                self._set(name, slice(first, first + len(values)), values.view(np.uint32))

    def _set(self, name: str, group: slice, values: Values) -> None:
        register = read(name, "b32")(self).copy()
        register[group] = values
        self.registers[name] = register

    def run(self) -> bool:
        """Run to the next barrier, which is passed (True), or to the end (False).

        Raises:
            Fault: a barrier that some threads never reach, threads that wait for each other, a product that is never
                waited for, or an error of an instruction.
        """
        code = self.block.code.decoded
        waiting = np.zeros(self.count, dtype=bool)
        while self._alive.any():
            position = self._choose(waiting)
            here = self._alive & (self._next == position)
            waiting &= ~here
            all_here = bool(here.all())
            ahead = self._next[self._alive & (self._next > position)]
            meeting = int(ahead.min()) if len(ahead) else len(code)
            while position < meeting:
                decoded = code[position]
                if not self._together(decoded, here):
                    self._next[here], waiting[here] = position, True
                    break
                mask = None if all_here else here
                if decoded.holds is not None:
                    holds = decoded.holds(self) if mask is None else decoded.holds(self) & mask
                    mask = None if holds.all() else holds
                executing = here if mask is None else mask
                name = decoded.instruction.parts[0]
                self._next[here] = position = position + 1
                if name == "bar":
                    if not all_here:
                        raise Fault(f"{decoded.instruction.text}: a barrier that some threads never reach")
                    return True
                if name == "ret":
                    self._alive &= ~executing
                    break
                if name in ("bra", "brx"):
                    self._next[executing] = self._targets(decoded.instruction)[executing]
                    if name == "brx" or not all_here or (mask is not None and mask.any()):
                        break
                    position = int(self._next[0])
                elif decoded.step is not None and executing.any():
                    self._execute(decoded, mask)
        if self._products:
            raise Fault("the program ends before its products")
        return False

    def _targets(self, instruction: Instruction) -> Values:
        """Return each thread's target of a branch."""
        program = self.block.code.program
        if instruction.parts[0] == "bra":
            return np.full(self.count, program.labels[instruction.operands[0]])
        index, table = instruction.operands
        targets = np.array([program.labels[label] for label in program.tables[table]])
        return targets[np.minimum(read(index, "u32")(self), len(targets) - 1)]

    def _choose(self, waiting: Values) -> int:
        """Return the next instruction to execute: that of the threads that are farthest behind and can continue."""
        ready = self._alive & ~waiting
        if ready.any():
            return int(self._next[ready].min())
        positions = np.unique(self._next[self._alive])
        for position in positions:
            if self._together(self.block.code.decoded[position], self._alive & (self._next == position)):
                return int(position)
        texts = [self.block.code.decoded[position].instruction.text for position in positions]
        raise Fault(f"threads wait for each other at {texts}")

    def _together(self, decoded: Decoded, here: Values) -> bool:
        """Return whether all threads that an instruction needs have arrived."""
        size = decoded.together
        if size == 0:
            return True
        if size < 0:
            return bool((here == self._alive).all())
        groups = here.reshape(-1, size)
        return bool((groups.any(axis=1) == groups.all(axis=1)).all())

    def _execute(self, decoded: Decoded, mask: Mask) -> None:
        assert decoded.step is not None
        self.block.warp_instructions += self.count // WARP
        try:
            decoded.step(self, mask)
        except Fault as fault:
            raise Fault(f"{decoded.instruction.text}: {fault}") from fault


class Block:
    """One program of a grid: its threads, and its memory by state space."""

    def __init__(
        self,
        code: Code,
        position: tuple[int, int, int],
        grid: tuple[int, ...],
        parameters: list[int],
        memory: dict[str, Memory],
    ) -> None:
        self.code, self.position, self.memory = code, position, memory
        self.grid = whole_grid(grid)
        self.parameters = dict(zip(code.program.parameters, parameters, strict=True))
        self.warp_instructions = 0
        count = min(code.in_step, code.program.threads)
        self._parts = [Threads(self, first, count) for first in range(0, code.program.threads, count)]

    def run(self) -> None:
        """Run all threads, part by part from barrier to barrier, in alternating order.

        Raises:
            Fault: see `Threads.run`; or a barrier that some parts never reach.
        """
        parts = self._parts
        with np.errstate(all="ignore"):
            while parts:
                at_barrier = [part.run() for part in parts]
                if any(at_barrier) and not all(at_barrier):
                    raise Fault("a barrier that some threads never reach")
                parts = parts[::-1] if any(at_barrier) else []


def whole_grid(grid: tuple[int, ...]) -> tuple[int, int, int]:
    """Return a grid of up to three axes with all three."""
    x, y, z = (*grid, 1, 1)[:3]
    return x, y, z


def run_grid(
    code: Code, grid: tuple[int, ...], parameters: list[int], shared_bytes: int, global_memory: Memory
) -> None:
    """Run all programs of a grid, one after another.

    Raises:
        Fault: one of them makes an error; the message has its position in the grid.
    """
    x, y, z = whole_grid(grid)
    for index in range(x * y * z):
        position = (index % x, index // x % y, index // (x * y))
        memory = {"shared": Memory.shared(shared_bytes), "global": global_memory}
        try:
            Block(code, position, grid, parameters, memory).run()
        except Fault as fault:
            raise Fault(f"{code.program.name}, program {position}: {fault}") from fault
