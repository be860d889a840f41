"""Parse PTX text to instructions."""

from __future__ import annotations

import re
from dataclasses import dataclass

# Directives within a function that do not affect execution.
IGNORED = (".reg", ".loc", ".file", ".pragma")
OPERAND = re.compile(r"\{[^}]*\}|\[[^\]]*\]|[^,\s][^,]*")


class Fault(Exception):
    """The program makes an error, or uses a feature that the simulator does not support."""


@dataclass(frozen=True)
class Instruction:
    """`opcode` operands, executed by the threads in which the register `predicate` is true, or if `negated` false."""

    opcode: str
    operands: tuple[str, ...]
    predicate: str | None
    negated: bool
    text: str

    @property
    def parts(self) -> list[str]:
        """The opcode's name, modifiers and type."""
        return self.opcode.split(".")


@dataclass(frozen=True)
class Program:
    """One kernel: its parameters, threads of a program, instructions, the index of each label, and branch tables.

    A table lists the target labels of `brx.idx`.
    """

    name: str
    parameters: tuple[str, ...]
    threads: int
    instructions: tuple[Instruction, ...]
    labels: dict[str, int]
    tables: dict[str, tuple[str, ...]]


def parse_instruction(text: str) -> Instruction:
    """Parse one statement without its semicolon."""
    guarded = re.fullmatch(r"@(!?)(%p\d+)\s+(.*)", text, re.DOTALL)
    statement = guarded[3] if guarded else text
    opcode, *rest = statement.split(None, 1)
    operands = tuple(operand.strip() for operand in OPERAND.findall(rest[0] if rest else ""))
    return Instruction(opcode, operands, guarded[2] if guarded else None, bool(guarded and guarded[1]), text)


def parse(ptx: str) -> Program:
    """Parse a PTX module with one kernel.

    Raises:
        Fault: there is no kernel in Triton's form.
    """
    entry = re.search(r"\.entry (\w+)\((.*?)\)\n(.*?)\n\{\n(.*?)\n\}", ptx, re.DOTALL)
    threads = re.search(r"\.reqntid (\d+)", entry[3]) if entry else None
    if entry is None or threads is None:
        raise Fault("no kernel with a number of threads")
    instructions: list[Instruction] = []
    labels: dict[str, int] = {}
    tables: dict[str, tuple[str, ...]] = {}
    last_label = unfinished = ""
    for line in entry[4].split("\n"):
        code = line.split("//")[0].strip()
        if label := re.match(r"([$\w]+):", code):
            last_label = label[1]
            labels[last_label] = len(instructions)
            code = code[label.end() :]
        if not code.strip().startswith(IGNORED):
            *statements, unfinished = f"{unfinished} {code}".split(";")
            for text in map(str.strip, statements):
                if text.startswith(".branchtargets"):
                    tables[last_label] = tuple(text.removeprefix(".branchtargets").replace(",", " ").split())
                else:
                    instructions.append(parse_instruction(text))
    parameters = tuple(parameter.split()[-1] for parameter in entry[2].split(","))
    return Program(entry[1], parameters, int(threads[1]), tuple(instructions), labels, tables)
