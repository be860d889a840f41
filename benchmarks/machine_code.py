"""Analyse compiled kernels: resources, instructions, and the pointer argument of each memory access.

NVIDIA: totals come from the SASS, printed by the disassembler in Triton's package. The PTX has the same accesses with
their source lines and call chains, and Triton's IR has the pointer of every load and store at these lines. Together
they assign the accesses in the PTX to arguments. AMD: everything comes from the assembly text.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

UNKNOWN = "unknown"
WIDE_BYTES = 16
ACCESSES = ("wide_loads", "narrow_loads", "wide_stores", "narrow_stores")

# A place in a source file (name without folders, row, column), and the call chain of an operation or instruction,
# innermost first.
Place = tuple[str, int, int]
Frames = tuple[Place, ...]


@dataclass
class MachineCode:
    """Resources and instructions of a compiled kernel; counts are of the code, not of executions."""

    registers: int  # of 32 bits, a thread
    spill_bytes: int  # of local (scratch) memory, a thread: spilled registers and other uses of a stack
    instructions: Counter[str]  # counts of tensor_core_ops and ACCESSES
    accesses: dict[str, Counter[str]]  # the same by argument; empty for AMD
    loop: int = 0  # instructions of the longest loop, those of nested loops counted once; 0 without one, and for AMD
    loop_spills: int = 0  # of these, loads and stores of spilled registers
    loop_loads: int = 0  # of these, loads of 16 bytes or more from global memory, copies to shared memory among them
    loads_behind: int = 0  # of these, those that arrive during matrix products, see `_loads_behind`


def read_nvidia(cubin: bytes, ptx: str, ttir: str, arguments: list[str]) -> MachineCode:
    """Return resources and instructions of a cubin.

    Args:
        cubin: the binary.
        ptx: the same kernel in PTX, with line information.
        ttir: the same kernel in Triton's IR, before layouts.
        arguments: names of its run-time arguments, in order.
    """
    from triton import knobs

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(cubin)
        usage = _output(knobs.nvidia.cuobjdump.path, "-res-usage", path)
        sass = _output(knobs.nvidia.nvdisasm.path, "-c", path)
    resources = {name: int(value) for name, value in re.findall(r"\b(REG|STACK|LOCAL):(\d+)", usage)}
    instructions: Counter[str] = Counter()
    for name, modifiers in re.findall(r"^\s*/\*[0-9a-f]+\*/\s+(?:@\S+\s+)?([A-Z]\w*)([\w.]*)", sass, re.MULTILINE):
        if name.endswith("MMA"):  # HMMA, HGMMA, UTCHMMA ...
            instructions["tensor_core_ops"] += 1
        elif name in ("LDG", "LDGSTS", "LD", "STG", "ST"):
            wide = re.search(r"\.(128|256|ENL2)\b", modifiers)
            instructions[_access(bool(wide), store=name in ("STG", "ST"))] += 1
    pointers = _pointers(ttir, arguments)
    accesses: dict[str, Counter[str]] = {}
    for access, frames in _ptx_accesses(ptx):
        accesses.setdefault(pointers.get(frames, UNKNOWN), Counter())[access] += 1
    loop = _longest_loop(sass)
    spills = sum(name in ("LDL", "STL") for name, _ in loop)
    spill_bytes = resources["STACK"] + resources["LOCAL"]
    loads, behind = _loads_behind(loop)
    return MachineCode(resources["REG"], spill_bytes, instructions, accesses, len(loop), spills, loads, behind)


def _longest_loop(sass: str) -> list[tuple[str, str]]:
    """Return the longest loop: its instructions, name and rest, from a label to the last branch back to it."""
    instructions: list[tuple[str, str]] = []
    labels: dict[str, int] = {}
    longest: list[tuple[str, str]] = []
    for line in sass.splitlines():
        if label := re.match(r"(\.L_\w+):", line):
            labels[label[1]] = len(instructions)
        elif instruction := re.match(r"\s*/\*[0-9a-f]+\*/\s+(?:@\S+\s+)?([A-Z]\w*)(.*)", line):
            instructions.append((instruction[1], instruction[2]))
            target = re.search(r"\.L_\w+", instruction[2]) if instruction[1] == "BRA" else None
            if target and target[0] in labels and len(instructions) - labels[target[0]] > len(longest):
                longest = instructions[labels[target[0]] :]
    # the code ends with an endless loop of one instruction
    return longest if len(longest) > 1 else []


def _loads_behind(loop: list[tuple[str, str]]) -> tuple[int, int]:
    """Count a loop's loads of 16 bytes, and those of them that arrive while matrix products run.

    These are loads into registers with a product between the load and its first use, and copies to shared memory if the
    loop never waits for all copies, only for those of an earlier iteration.
    """
    waits = [int(groups, 16) for name, rest in loop if name == "DEPBAR" for groups in re.findall(r"SB0, (0x\w+)", rest)]
    registers = [[int(register) for register in re.findall(r"\bR(\d+)", rest)] for _, rest in loop]
    loads = behind = 0
    for place, (name, rest) in enumerate(loop):
        if name not in ("LDG", "LDGSTS") or ".128" not in rest:
            continue
        loads += 1
        if name == "LDGSTS":
            behind += min(waits, default=0) > 0
            continue
        loaded = set(range(registers[place][0], registers[place][0] + 4))
        products = 0
        for later in range(place + 1, len(loop)):
            if loaded.intersection(registers[later]):
                break
            products += loop[later][0].endswith("MMA")
        behind += products > 0
    return loads, behind


def read_amd(assembly: str) -> MachineCode:
    """Return resources and instructions of AMD's assembly text."""
    numbers = {name: int(value) for name, value in re.findall(r"\.(\w+):\s+(\d+)\s*$", assembly, re.MULTILINE)}
    instructions: Counter[str] = Counter()
    for instruction in re.findall(r"^\s+([a-z]\w+)", assembly, re.MULTILINE):
        if instruction.startswith(("v_mfma", "v_wmma")):
            instructions["tensor_core_ops"] += 1
        elif access := re.match(r"(?:global|buffer|flat)_(load|store)_(dwordx4|b128)?", instruction):
            instructions[_access(bool(access[2]), store=access[1] == "store")] += 1
    return MachineCode(numbers["vgpr_count"], numbers["private_segment_fixed_size"], instructions, {})


def _access(wide: bool, store: bool) -> str:
    return f"{'wide' if wide else 'narrow'}_{'stores' if store else 'loads'}"


def _output(*command: object) -> str:
    return subprocess.run([str(part) for part in command], check=True, capture_output=True, text=True).stdout


def _ptx_accesses(ptx: str) -> Iterator[tuple[str, Frames]]:
    """Yield each access to global memory in the PTX, one of `ACCESSES`, with its source lines."""
    files = {number: Path(path).name for number, path in re.findall(r'^\s*\.file\s+(\d+) "(.*?)"', ptx, re.MULTILINE)}
    callers: dict[Place, Frames] = {}
    frames: Frames = ()
    inside = embedded = False  # embedded: after inline assembly, whose lines LLVM also counts
    for line in ptx.splitlines():
        if "inline asm" in line:
            inside, embedded = "begin" in line, False
        elif location := re.match(r"\s*\.loc\s+(\d+) (\d+) (\d+)(?:,.* inlined_at (\d+) (\d+) (\d+))?", line):
            if embedded:
                continue
            file, row, column, *caller = location.groups()
            place = (files[file], int(row), int(column))
            frames = (place,)
            if chain := re.findall(r"@\[ ([^:]+):(\d+):(\d+)", line):  # Triton 3.6: callers in a comment only
                frames += tuple((file, int(row), int(column)) for file, row, column in chain)
            elif caller[0] is not None:
                call = (files[caller[0]], int(caller[1]), int(caller[2]))
                # If the call is itself inlined, its place appeared before, with its own caller.
                frames = (place, call, *callers.get(call, ()))
            callers[place] = frames[1:]
        else:
            embedded = inside
            if copy := re.search(r"\bcp\.async\.c[ag]\.shared\.global\b.*\], (\w+)", line):
                yield _access(int(copy[1], 0) >= WIDE_BYTES, store=False), frames
            elif access := re.search(r"\b(ld|st)\.global\b\S*?(?:\.v(\d))?\.[a-z](\d+)\s", line):
                size = int(access[2] or 1) * int(access[3]) // 8
                yield _access(size >= WIDE_BYTES, store=access[1] == "st"), frames


def _pointers(ttir: str, arguments: list[str]) -> dict[Frames, str]:
    """Map the source lines of every load and store to the argument that its pointer comes from."""
    locations = dict(re.findall(r"^(#loc\d*) = loc\((.*)\)$", ttir, re.MULTILINE))
    signature = re.search(r"tt\.func public @\w+\((.*)\) attributes", ttir)
    values = dict(zip(re.findall(r"(%\w+): ", signature[1] if signature else ""), arguments, strict=True))
    result: dict[Frames, set[str]] = {}
    # A pointer is an argument, or derives from one through the first operands of operations.
    for made, operation, operand, location in re.findall(
        r"^\s*(?:(%\w+) = )?([\w.]+) (%\w+)\b.* loc\((#loc\d*)\)$", ttir, re.MULTILINE
    ):
        if made:
            values[made] = values.get(operand, UNKNOWN)
        if operation in ("tt.load", "tt.store"):
            result.setdefault(_frames(location, locations), set()).add(values.get(operand, UNKNOWN))
    return {frames: "|".join(sorted(names)) for frames, names in result.items()}


def _frames(location: str, locations: dict[str, str]) -> Frames:
    text = locations.get(location, "")
    if place := re.fullmatch(r'"(.*)":(\d+):(\d+)', text):
        return ((Path(place[1]).name, int(place[2]), int(place[3])),)
    if named := re.fullmatch(r'".*"\((#loc\d*)\)', text):
        return _frames(named[1], locations)
    if call := re.fullmatch(r"callsite\((#loc\d*) at (#loc\d*)\)", text):
        return _frames(call[1], locations) + _frames(call[2], locations)
    return ()
