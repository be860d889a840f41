"""Instructions that compute a register from registers, for each thread."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .formats import ROUND, WIDEN, Values, flush_denormals, high, low, pair, round_to_tf32
from .operands import DTYPES, Mask, elements, read, write
from .program import Fault, Instruction

if TYPE_CHECKING:
    from .machine import Threads

Step = Callable[["Threads", Mask], None]
Function = Callable[..., Values]


def fused(a: Values, b: Values, c: Values) -> Values:
    """Return a b + c, rounded once or almost so."""
    return (a.astype(np.float64) * b + c).astype(a.dtype)


def divided(a: Values, b: Values) -> Values:
    """Return a / b rounded towards zero, of at most 32 bits; b = 0 is undefined on a GPU."""
    wide_a, wide_b = a.astype(np.int64), np.where(b == 0, 1, b).astype(np.int64)
    return (np.sign(wide_a) * np.sign(wide_b) * (np.abs(wide_a) // np.abs(wide_b))).astype(a.dtype)


FLOATS: dict[str, Function] = {
    "add": operator.add, "sub": operator.sub, "mul": operator.mul, "div": operator.truediv, "fma": fused,
    "min": np.fmin, "max": np.fmax, "neg": operator.neg, "abs": np.abs, "copysign": lambda a, b: np.copysign(b, a),
    "ex2": np.exp2, "rcp": np.reciprocal,
}  # fmt: skip
INTEGERS: dict[str, Function] = {
    "add": operator.add, "sub": operator.sub, "mul": operator.mul, "mad": lambda a, b, c: a * b + c, "div": divided,
    "rem": lambda a, b: a - b * divided(a, b), "min": np.minimum, "max": np.maximum, "neg": operator.neg,
    "abs": np.abs, "and": operator.and_, "or": operator.or_, "xor": operator.xor, "not": operator.invert,
}  # fmt: skip
COMPARISONS: dict[str, Function] = {
    "eq": operator.eq, "ne": lambda a, b: (a < b) | (a > b), "lt": operator.lt, "le": operator.le,
    "gt": operator.gt, "ge": operator.ge, "neu": operator.ne, "num": lambda a, b: ~(np.isnan(a) | np.isnan(b)),
    "equ": lambda a, b: ~((a < b) | (a > b)), "ltu": lambda a, b: ~(a >= b), "leu": lambda a, b: ~(a > b),
    "gtu": lambda a, b: ~(a <= b), "geu": lambda a, b: ~(a < b), "nan": lambda a, b: np.isnan(a) | np.isnan(b),
}  # fmt: skip
TWICE_AS_WIDE = {"s16": "s32", "u16": "u32", "s32": "s64", "u32": "u64"}


def compute(function: Function, target: str, sources: Sequence[str], kinds: Sequence[str]) -> Step:
    """Return the step target = function(*sources), with each source read as its kind."""
    put, gets = write(target), [read(source, kind) for source, kind in zip(sources, kinds, strict=True)]
    return lambda threads, mask: put(threads, function(*(get(threads) for get in gets)), mask)


def one_of_two(a: Values, b: Values, first: Values) -> Values:
    """Return a where `first` is true, else b."""
    return np.where(first, a, b)


def shifted(name: str, kind: str) -> Function:
    """Return the function x << n or x >> n; a shift by the width of x or more removes all bits."""
    dtype = DTYPES[kind]
    bits = 8 * np.dtype(dtype).itemsize
    shift = operator.lshift if name == "shl" else operator.rshift

    def function(x: Values, amount: Values) -> Values:
        shifted = shift(x, np.minimum(amount, bits - 1).astype(dtype))
        return shifted if kind.startswith("s") else np.where(amount < bits, shifted, dtype(0))

    return function


def bit_field(kind: str) -> Function:
    """Return the function for `length` bits of x from `position` on, sign-extended for a signed kind; 32 bits."""

    def function(x: Values, position: Values, length: Values) -> Values:
        top = x.view(np.uint32) << (32 - position - length)
        return top.view(DTYPES[kind]) >> (32 - length).astype(DTYPES[kind])

    return function


def permuted(a: Values, b: Values, selector: Values) -> Values:
    """Return four of the eight bytes of a and b, each selected by 3 bits of one of the selector's nibbles."""
    both = np.stack([a, b], axis=-1).view(np.uint8)
    chosen = np.stack([(selector >> np.uint32(4 * byte)) & np.uint32(7) for byte in range(4)], axis=-1)
    return np.take_along_axis(both, chosen.astype(np.int64), axis=-1).view(np.uint32)[:, 0]


def on_halves(function: Function, kind: str) -> Function:
    """Return the float32 `function` applied to 16-bit values, or to both values of a pair."""
    widen, rounded = WIDEN[kind.removesuffix("x2")], ROUND[kind.removesuffix("x2")]

    def on_one(*values: Values) -> Values:
        return rounded(function(*map(widen, values)))

    if not kind.endswith("x2"):
        return on_one
    return lambda *values: pair(on_one(*map(low, values)), on_one(*map(high, values)))


def on_flushed(function: Function) -> Function:
    """Return `function` with denormals flushed to zero before and after."""
    return lambda *values: flush_denormals(function(*map(flush_denormals, values)))


def comparison(instruction: Instruction) -> Step:
    """Return the step of setp: one predicate, or one for each value of a pair."""
    _, name, kind = instruction.parts
    function, (target, *sources) = COMPARISONS[name], instruction.operands
    if kind in WIDEN:
        return compute(lambda a, b: function(WIDEN[kind](a), WIDEN[kind](b)), target, sources, [kind] * 2)
    if not kind.endswith("x2"):
        return compute(function, target, sources, [kind] * 2)
    widen, puts, gets = WIDEN[kind[:-2]], [write(t) for t in target.split("|")], [read(s, kind) for s in sources]

    def step(threads: Threads, mask: Mask) -> None:
        for put, half in zip(puts, (low, high), strict=True):
            put(threads, function(*(widen(half(get(threads))) for get in gets)), mask)

    return step


def conversion(instruction: Instruction) -> Step:
    """Return the step of cvt.

    Raises:
        Fault: an unsupported conversion.
    """
    to, kind = instruction.parts[-2:]
    target, *sources = instruction.operands
    if instruction.opcode == "cvt.rna.tf32.f32":
        return compute(round_to_tf32, target, sources, [kind])
    if to.endswith("x2"):
        rounded = ROUND[to[:-2]]
        return compute(lambda upper, lower: pair(rounded(lower), rounded(upper)), target, sources, [kind] * 2)
    if to in ROUND and kind in WIDEN:
        return compute(lambda bits: ROUND[to](WIDEN[kind](bits)), target, sources, [kind])
    if to in ROUND and kind == "f32":
        return compute(ROUND[to], target, sources, [kind])
    if to == "f32" and kind in WIDEN:
        return compute(WIDEN[kind], target, sources, [kind])
    if kind == "f32" or kind in WIDEN or to in ROUND:
        raise Fault(f"unknown: {instruction.text}")
    return compute(lambda value: value.astype(DTYPES[to]), target, sources, [kind])


def move(instruction: Instruction) -> Step:
    """Return the step of mov, which may also join two registers or split one."""
    kind, (target, source) = instruction.parts[-1], instruction.operands
    if target.startswith("{"):
        puts, get = [write(name) for name in elements(target)], read(source, kind)

        def apart(threads: Threads, mask: Mask) -> None:
            both = get(threads)
            halves = np.ascontiguousarray(both).view(f"uint{4 * both.itemsize}").reshape(-1, 2)
            for index, put in enumerate(puts):
                put(threads, halves[:, index], mask)

        return apart
    if source.startswith("{"):
        put, gets = write(target), [read(name, f"b{int(kind[1:]) // 2}") for name in elements(source)]

        def together(threads: Threads, mask: Mask) -> None:
            put(threads, np.stack([get(threads) for get in gets], axis=-1).view(DTYPES[kind])[:, 0], mask)

        return together
    return compute(lambda value: value, target, [source], [kind])


def multiplication(instruction: Instruction) -> Step:
    """Return the step of integer mul and mad: the lower half of the product, the upper half, or all of it.

    Raises:
        Fault: an unsupported upper half.
    """
    name, part, kind = instruction.parts
    target, *sources = instruction.operands
    if part == "lo":
        return compute(INTEGERS[name], target, sources, [kind] * len(sources))
    wide = TWICE_AS_WIDE[kind]
    kinds = [kind, kind, wide][: len(sources)]
    if part == "wide":
        dtype = DTYPES[wide]
        return compute(lambda *values: INTEGERS[name](*(v.astype(dtype) for v in values)), target, sources, kinds)
    if (name, part, wide) != ("mul", "hi", "u64"):
        raise Fault(f"unknown: {instruction.text}")
    return compute(lambda a, b: ((a.astype(np.uint64) * b) >> np.uint64(32)).astype(np.uint32), target, sources, kinds)


def arithmetic(instruction: Instruction) -> Step:
    """Return the step of any other instruction, from tables of functions.

    Raises:
        Fault: the tables have no function of this name.
    """
    name, kind = instruction.parts[0], instruction.parts[-1]
    target, *sources = instruction.operands
    kinds: Sequence[Any] = [kind] * len(sources)
    function: Function | None
    if name in ("shl", "shr"):
        function, kinds = shifted(name, kind), [kind, "u32"]
    elif name == "bfe" and kind in ("u32", "s32"):
        function, kinds = bit_field(kind), [kind, "u32", "u32"]
    elif name == "selp":
        function, kinds = one_of_two, [kind, kind, "pred"]
    elif name == "prmt":
        function = permuted
    elif kind in ("f32", "f64"):
        function = FLOATS.get(name)
        if function is not None and "ftz" in instruction.parts:
            function = on_flushed(function)
    elif kind.removesuffix("x2") in WIDEN:
        function = on_halves(FLOATS[name], kind) if name in FLOATS else None
    else:
        function = INTEGERS.get(name)
    if function is None:
        raise Fault(f"unknown: {instruction.text}")
    return compute(function, target, sources, kinds)
