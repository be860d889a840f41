"""Kernels whose machine code is known beforehand; as a script: compiles them and prints what was read from it."""

import json

import torch
import triton
import triton.language as tl

from benchmarks.codegen import CHIPS, compile_launch
from benchmarks.machine_code import read_nvidia
from dlfa_kernels.launches import Launch


@triton.jit
def load(ptr, offsets):
    return tl.load(ptr + offsets)


@triton.jit
def copy_kernel(source_ptr, other_ptr, target_ptr, scattered_ptr, BLOCK: tl.constexpr):
    """Neighbouring elements but for the last argument, whose are three apart."""
    offsets = tl.arange(0, BLOCK)
    value = load(source_ptr, offsets) + load(other_ptr, offsets)
    tl.store(target_ptr + offsets, value)
    tl.store(scattered_ptr + 3 * offsets, value)


@triton.jit
def spilling_kernel(source_ptr, target_ptr, BLOCK: tl.constexpr):
    """Keeps BLOCK * BLOCK floats over a reduction, more than the registers of one warp hold at BLOCK = 128."""
    offsets = tl.arange(0, BLOCK)[:, None] * BLOCK + tl.arange(0, BLOCK)[None, :]
    value = tl.load(source_ptr + offsets)
    tl.store(target_ptr + offsets, value / tl.sum(tl.sum(value, axis=1), axis=0))


@triton.jit
def product_kernel(a_ptr, b_ptr, target_ptr, BLOCK: tl.constexpr):
    """One matrix product of two square blocks."""
    offsets = tl.arange(0, BLOCK)[:, None] * BLOCK + tl.arange(0, BLOCK)[None, :]
    tl.store(target_ptr + offsets, tl.dot(tl.load(a_ptr + offsets), tl.load(b_ptr + offsets)))


@triton.jit
def looping_kernel(source_ptr, target_ptr, turns, BLOCK: tl.constexpr):
    """Sums blocks one after the other."""
    offsets = tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK,), dtype=tl.float32)
    for turn in tl.range(turns, loop_unroll_factor=1):
        total += tl.load(source_ptr + turn * BLOCK + offsets)
    tl.store(target_ptr + offsets, total)


def launch_of(kernel, block, num_warps, dtype, *names, **integers):
    tensor = torch.empty(3 * block * block, dtype=dtype, device="meta")
    return Launch(kernel, (1,), dict.fromkeys(names, tensor) | integers, {"BLOCK": block}, num_warps, num_stages=2)


LAUNCHES = {
    "copy": launch_of(copy_kernel, 1024, 4, torch.float32, "source_ptr", "other_ptr", "target_ptr", "scattered_ptr"),
    "spilling": launch_of(spilling_kernel, 128, 1, torch.float32, "source_ptr", "target_ptr"),
    "looping": launch_of(looping_kernel, 512, 4, torch.float32, "source_ptr", "target_ptr", turns=77),
    "product": launch_of(product_kernel, 64, 4, torch.bfloat16, "a_ptr", "b_ptr", "target_ptr"),
}

if __name__ == "__main__":
    result = {}
    for arch in ("sm_80", "sm_90", "sm_100"):
        for name, item in LAUNCHES.items():
            compiled, arguments = compile_launch(item, CHIPS[arch])
            asm = compiled.asm
            result[f"{name} {arch}"] = read_nvidia(asm["cubin"], asm["ptx"], asm["ttir"], arguments)
    print(json.dumps({name: vars(code) for name, code in result.items()}))
