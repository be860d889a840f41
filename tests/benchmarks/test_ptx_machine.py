"""The machine that stands in for a GPU: it computes what PTX says, and refuses what a GPU would let pass or hang at."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from benchmarks.ptx_machine.formats import round_to_bfloat16, widen_bfloat16
from benchmarks.ptx_machine.machine import Code, run_grid
from benchmarks.ptx_machine.memory import Memory
from benchmarks.ptx_machine.program import Fault, parse

REGISTERS = ".reg .pred %p<9>;\n.reg .b16 %rs<9>;\n.reg .b32 %r<99>;\n.reg .b64 %rd<9>;\n"
# Pointers to thread t's places in two arrays of 32-bit words, in %rd1 and %rd2; t in %r1, its place in shared %r2.
PLACES = """
    ld.param.b64 %rd1, [kernel_param_0];
    ld.param.b64 %rd2, [kernel_param_1];
    mov.u32 %r1, %tid.x;
    mad.wide.u32 %rd1, %r1, 4, %rd1;
    mad.wide.u32 %rd2, %r1, 4, %rd2;
    mov.b32 %r3, global_smem;
    shl.b32 %r2, %r1, 2;
    add.s32 %r2, %r2, %r3;
"""


def run(body: str, source: np.ndarray[Any, Any], threads: int = 32, shared: int = 1024, size: int = 0) -> Any:
    """What a kernel of this body writes to its second array, uint32 as many as threads, or `size`."""
    target = np.zeros(size or threads, dtype=np.uint32)
    ptx = f"""
.visible .entry kernel(
\t.param .u64 .ptr .global .align 1 kernel_param_0,
\t.param .u64 .ptr .global .align 1 kernel_param_1
)
.reqntid {threads}
{{
{REGISTERS}{PLACES}{body}
\tret;
}}
"""
    arrays = [source, target]
    pointers = [array.ctypes.data for array in arrays]
    memory = Memory.of_process([(array.ctypes.data, array.ctypes.data + array.nbytes) for array in arrays])
    run_grid(Code(parse(ptx)), (1,), pointers, shared, memory)
    return target


def mapped(instructions: str, values: np.ndarray[Any, Any]) -> Any:
    """What instructions make of %r4, one value a thread, in %r5."""
    body = f"ld.global.b32 {{ %r4 }}, [ %rd1 + 0 ];\n{instructions}\nst.global.b32 [ %rd2 + 0 ], {{ %r5 }};"
    return run(body, np.ascontiguousarray(np.resize(values, 32)).view(np.uint32))[: len(values)]


FLOATS = np.array([0, -1.5, 2.75, 3.1415927, 1e-3, -6e4, np.inf, np.nan], dtype=np.float32)
INTEGERS = np.array([0, 1, -1, 77, -1234567, 2**31 - 1, -(2**31), 65535], dtype=np.int32)


@pytest.mark.parametrize(
    ("instructions", "expected"),
    [
        ("add.f32 %r5, %r4, 0f3F800000;", FLOATS + np.float32(1)),
        ("fma.rn.f32 %r5, %r4, %r4, %r4;", (FLOATS.astype(np.float64) ** 2 + FLOATS).astype(np.float32)),
        ("neg.f32 %r5, %r4;", -FLOATS),
        ("ex2.approx.ftz.f32 %r5, %r4;", np.exp2(FLOATS)),
        ("rcp.approx.ftz.f32 %r5, %r4;", np.array([np.inf, *(1 / FLOATS[1:])])),
        ("setp.lt.f32 %p1, %r4, 0f00000000;\nselp.f32 %r5, 0f00000000, %r4, %p1;", np.where(FLOATS < 0, 0, FLOATS)),
        (
            "cvt.rn.bf16.f32 %rs1, %r4;\nmov.b16 %rs2, 0;\nmov.b32 %r5, {%rs2, %rs1};",
            widen_bfloat16(round_to_bfloat16(FLOATS)),
        ),
        (
            "cvt.rn.f16.f32 %rs1, %r4;\ncvt.rn.bf16.f16 %rs2, %rs1;\ncvt.f32.bf16 %r5, %rs2;",
            widen_bfloat16(round_to_bfloat16(FLOATS.astype(np.float16).astype(np.float32))),
        ),
        (
            "cvt.rn.bf16x2.f32 %r5, %r4, %r4;\nadd.bf16x2 %r5, %r5, %r5;\nand.b32 %r5, %r5, -65536;",
            widen_bfloat16(round_to_bfloat16(2 * widen_bfloat16(round_to_bfloat16(FLOATS)))),
        ),
    ],
    ids=lambda value: value.split(" ")[0] if isinstance(value, str) else "",
)
def test_floats(instructions: str, expected: np.ndarray[Any, Any]) -> None:
    np.testing.assert_allclose(mapped(instructions, FLOATS).view(np.float32), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("instructions", "function"),
    [
        ("mul.lo.s32 %r5, %r4, -7;", lambda n: n * -7),
        (
            "mul.wide.s32 %rd3, %r4, 1000000;\nshr.s64 %rd3, %rd3, 32;\ncvt.u32.u64 %r5, %rd3;",
            lambda n: n * 10**6 >> 32,
        ),
        ("mul.hi.u32 %r5, %r4, 715827883;", lambda n: (n % 2**32) * 715827883 >> 32),
        ("mad.lo.s32 %r5, %r4, 3, 5;", lambda n: 3 * n + 5),
        ("div.s32 %r5, %r4, 7;", lambda n: int(n / 7)),
        ("rem.s32 %r5, %r4, 7;", lambda n: n - 7 * int(n / 7)),
        ("bfe.u32 %r5, %r4, 3, 5;", lambda n: n >> 3 & 31),
        ("bfe.s32 %r5, %r4, 4, 1;", lambda n: -(n >> 4 & 1)),
        ("shr.s32 %r5, %r4, 40;", lambda n: n >> 31),
        ("shr.u32 %r5, %r4, 40;", lambda n: 0),
        ("shl.b32 %r5, %r4, 5;", lambda n: n << 5),
        ("min.s32 %r5, %r4, 9;", lambda n: min(n, 9)),
        ("xor.b32 %r5, %r4, 21;\nnot.b32 %r5, %r5;", lambda n: ~(n ^ 21)),
        ("prmt.b32 %r5, %r4, 0, 0x4012;", lambda n: (n >> 16 & 255) | (n & 0xFF00) | (n & 255) << 16),
        ("cvt.s64.s32 %rd3, %r4;\nsetp.gt.s64 %p1, %rd3, -1;\nselp.b32 %r5, 1, 0, %p1;", lambda n: n >= 0),
        ("cvt.u16.u32 %rs1, %r4;\ncvt.u32.u16 %r5, %rs1;", lambda n: n % 2**16),
        ("shfl.sync.bfly.b32 %r5, %r4, 1, 31, -1;\nshfl.sync.idx.b32 %r5, %r5, 1, 31, -1;", lambda n: 0),
        ("mov.b32 %r5, 3;\nsetp.lt.s32 %p1, %r4, 0;\n@!%p1 mov.b32 %r5, 4;", lambda n: 3 if n < 0 else 4),
    ],
    ids=lambda value: value.split(" ")[0] if isinstance(value, str) else "",
)
def test_integers(instructions: str, function: Any) -> None:
    expected = [function(int(value)) % 2**32 for value in INTEGERS]
    assert mapped(instructions, INTEGERS).tolist() == expected


def test_loops_and_branches_by_thread() -> None:
    """Thread t adds 3 up t times, and odd ones 100."""
    body = """
    mov.b32 %r5, 0;
    mov.b32 %r6, 0;
$L__BB0_1:
    setp.ge.s32 %p1, %r6, %r1;
    @%p1 bra $L__BB0_2;
    add.s32 %r5, %r5, 3;
    add.s32 %r6, %r6, 1;
    bra.uni $L__BB0_1;
$L__BB0_2:
    and.b32 %r7, %r1, 1;
    setp.eq.b32 %p2, %r7, 0;
    @%p2 bra $L__BB0_3;
    add.s32 %r5, %r5, 100;
$L__BB0_3:
    redux.sync.add.s32 %r8, %r7, -1;
    add.s32 %r5, %r5, %r8;
    st.global.b32 [ %rd2 + 0 ], { %r5 };
    """
    assert run(body, np.zeros(1, np.uint32)).tolist() == [3 * t + 100 * (t % 2) + 16 for t in range(32)]


def test_branches_by_a_table() -> None:
    body = """
    and.b32 %r4, %r1, 1;
    $L_brx_0: .branchtargets
        $L__BB0_1,
        $L__BB0_2;
    brx.idx %r4, $L_brx_0;
$L__BB0_1:
    mov.b32 %r5, 7;
    bra.uni $L__BB0_3;
$L__BB0_2:
    mov.b32 %r5, 8;
$L__BB0_3:
    st.global.b32 [ %rd2 + 0 ], { %r5 };
    """
    assert run(body, np.zeros(1, np.uint32)).tolist() == [7, 8] * 16


# Each thread hands its word to the thread 32 further on, in another warp.
EXCHANGE = """
    ld.global.b32 {{ %r4 }}, [ %rd1 + 0 ];
    st.shared.b32 [ %r2 + 0 ], %r4;
    {barrier}
    xor.b32 %r6, %r2, 128;
    ld.shared.b32 %r5, [%r6];
    st.global.b32 [ %rd2 + 0 ], {{ %r5 }};
"""


def test_barriers() -> None:
    words = np.arange(64, dtype=np.uint32)
    assert run(EXCHANGE.format(barrier="bar.sync 0;"), words, 64).tolist() == [*range(32, 64), *range(32)]
    raced = run(EXCHANGE.format(barrier=""), words, 64)
    assert np.isnan(raced[:32].view(np.float32)).all()


COPY = """
    cp.async.ca.shared.global [ %r2 + 0 ], [ %rd1 + 0 ], 0x4, {length};
    cp.async.commit_group;
    {wait}
    ld.shared.b32 %r5, [%r2];
    st.global.b32 [ %rd2 + 0 ], {{ %r5 }};
"""


def test_asynchronous_copies() -> None:
    words = np.arange(1, 33, dtype=np.uint32)
    assert (run(COPY.format(wait="cp.async.wait_group 0;", length=4), words) == words).all()
    assert (run(COPY.format(wait="cp.async.wait_group 0;", length=0), words) == 0).all()
    for early in ("", "cp.async.wait_group 1;"):
        assert np.isnan(run(COPY.format(wait=early, length=4), words).view(np.float32)).all()


@pytest.mark.parametrize("transposed", [False, True])
def test_matrices_of_a_warp(transposed: bool) -> None:
    """ldmatrix hands thread t the elements (t / 4, 2 (t % 4)) and the next of an 8 x 8 matrix, or of its transpose."""
    body = f"""
    ld.global.b32 {{ %r4 }}, [ %rd1 + 0 ];
    st.shared.b32 [ %r2 + 0 ], %r4;
    bar.sync 0;
    and.b32 %r6, %r1, 7;
    mad.lo.s32 %r6, %r6, 16, %r3;
    ldmatrix.sync.aligned.m8n8.x1{".trans" if transposed else ""}.shared.b16 {{%r5}}, [%r6];
    stmatrix.sync.aligned.m8n8.x1{".trans" if transposed else ""}.shared.b16 [%r6+512], {{%r5}};
    ld.shared.b32 %r7, [%r2+512];
    st.global.b32 [ %rd2 + 0 ], {{ %r5 }};
    st.global.b32 [ %rd2 + 128 ], {{ %r7 }};
    """
    matrix = np.arange(64, dtype=np.uint16).reshape(8, 8)
    written = run(body, matrix.view(np.uint32).reshape(-1), size=64).view(np.uint16)
    assert (written[:64].reshape(8, 8) == (matrix.T if transposed else matrix)).all()
    assert (written[64:].reshape(8, 8) == matrix).all()


@pytest.mark.parametrize(
    ("kind", "depth"), [("m16n8k16.row.col.f32.bf16.bf16.f32", 16), ("m16n8k8.row.col.f32.tf32.tf32.f32", 8)]
)
def test_product_of_a_warp(kind: str, depth: int) -> None:
    """Of A (16, k) and B^T (8, k), loaded as matrices of 16 bits are, added to 1."""
    size, generator = (2 if depth == 16 else 4), np.random.default_rng(0)
    values = generator.integers(-8, 9, (24, depth)).astype(np.float32)
    words = (round_to_bfloat16(values) if size == 2 else values).reshape(-1).view(np.uint32)
    body = f"""
    ld.param.b64 %rd1, [kernel_param_0];
    shr.u32 %r6, %r1, 2;
    and.b32 %r7, %r1, 3;
    mad.lo.s32 %r6, %r6, {depth * size // 4}, %r7;
    mad.wide.u32 %rd1, %r6, 4, %rd1;
    ld.global.b32 {{ %r10 }}, [ %rd1 + 0 ];
    ld.global.b32 {{ %r11 }}, [ %rd1 + {8 * depth * size} ];
    ld.global.b32 {{ %r12 }}, [ %rd1 + 16 ];
    ld.global.b32 {{ %r13 }}, [ %rd1 + {8 * depth * size + 16} ];
    ld.global.b32 {{ %r14 }}, [ %rd1 + {16 * depth * size} ];
    ld.global.b32 {{ %r15 }}, [ %rd1 + {16 * depth * size + 16} ];
    mov.b32 %r20, 0f3F800000;
    mma.sync.aligned.{kind} {{%r20,%r21,%r22,%r23}}, {{%r10,%r11,%r12,%r13}}, {{%r14,%r15}}, {{%r20,%r20,%r20,%r20}};
    ld.param.b64 %rd2, [kernel_param_1];
    mad.wide.u32 %rd2, %r1, 8, %rd2;
    st.global.v2.b32 [ %rd2 + 0 ], {{ %r20, %r21 }};
    st.global.v2.b32 [ %rd2 + 256 ], {{ %r22, %r23 }};
    """
    result = run(body, words, size=128).view(np.float32).reshape(16, 8)
    assert (result == values[:16] @ values[16:].T + 1).all()


def descriptor(place: int, leading: int, stride: int, mode: int) -> int:
    return place >> 4 | leading >> 4 << 16 | stride >> 4 << 32 | mode << 62


@pytest.mark.parametrize("mode", [0, 1, 2, 3])
@pytest.mark.parametrize("waited", [True, False])
def test_product_of_a_warpgroup(mode: int, waited: bool) -> None:
    """A (64, 16) times B^T (8, 16), both in memory as the layout of a mode has it: 1 swizzles 128 bytes, 0 none."""
    values = np.random.default_rng(mode).integers(-8, 9, (72, 16)).astype(np.float32)
    width = {0: 16, 1: 128, 2: 64, 3: 32}[mode]
    bytes_of_a = 64 * 128 if mode == 0 else 64 * width
    memory = np.zeros(bytes_of_a + 2048, dtype=np.uint8)
    stride, leading = (8 * width, 1024 if mode == 0 else 16)
    for row, line in enumerate(values):
        begin, row = (0, row) if row < 64 else (bytes_of_a, row - 64)
        for column, bits in enumerate(round_to_bfloat16(line)):
            if mode == 0:  # 8 x 8 blocks without a gap, those of the other half of k 1024 bytes on
                place = begin + row // 8 * stride + row % 8 * 16 + column // 8 * leading + column % 8 * 2
            else:
                place = begin + row * width + column * 2
                place ^= (place >> 7 & width // 16 - 1) << 4
            memory[place : place + 2] = np.array(bits).reshape(1).view(np.uint8)
    shared = 1024
    words = np.pad(memory, (0, -len(memory) % 512)).view(np.uint32)
    fill = "".join(
        f"ld.global.b32 {{ %r4 }}, [ %rd1 + {512 * n} ];\nst.shared.b32 [ %r2 + {512 * n} ], %r4;\n"
        for n in range(len(words) // 128)
    )
    body = f"""
    {fill}
    bar.sync 0;
    mov.b64 %rd3, {descriptor(shared, leading, stride, mode)};
    mov.b64 %rd4, {descriptor(shared + bytes_of_a, leading, stride, mode)};
    mov.pred %p1, 0;
    wgmma.fence.sync.aligned;
    wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {{%r20,%r21,%r22,%r23}}, %rd3, %rd4, %p1, 1, 1, 0, 0;
    wgmma.commit_group.sync.aligned;
    wgmma.wait_group.sync.aligned {0 if waited else 1};
    ld.param.b64 %rd2, [kernel_param_1];
    mad.wide.u32 %rd2, %r1, 16, %rd2;
    st.global.v4.b32 [ %rd2 + 0 ], {{ %r20, %r21, %r22, %r23 }};
    wgmma.wait_group.sync.aligned 0;
    """
    written = run(body, words, threads=128, shared=len(words) * 4, size=512).view(np.float32).reshape(4, 8, 4, 2, 2)
    # (warp, row of eight, pair of columns, which eight rows, column)
    result = written.transpose(0, 3, 1, 2, 4).reshape(64, 8)
    if waited:
        assert (result == values[:64] @ values[64:].T).all()
    else:
        assert np.isnan(result).all()


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("ld.global.b32 { %r4 }, [ %rd1 + 128 ];", "an access outside"),
        ("st.shared.b32 [ %r2 + 1024 ], %r1;", "an access outside"),
        ("ld.global.b32 { %r4 }, [ %rd1 + 2 ];", "misaligned"),
        ("ld.global.v2.b32 { %r4, %r5 }, [ %rd1 + 0 ];", "misaligned"),
        ("tanh.approx.f32 %r4, %r1;", "unknown: tanh.approx.f32"),
        (
            "setp.lt.s32 %p1, %r1, 7;\n@%p1 bra $L__BB0_1;\nshfl.sync.bfly.b32 %r4, %r1, 1, 31, -1;\n$L__BB0_1:",
            "wait for each other",
        ),
        ("setp.lt.s32 %p1, %r1, 7;\n@%p1 bra $L__BB0_1;\nbar.sync 0;\n$L__BB0_1:", "never reach"),
    ],
)
def test_faults(body: str, said: str) -> None:
    with pytest.raises(Fault, match=said):
        run(body, np.zeros(32, dtype=np.uint32))


def test_a_barrier_that_a_warp_never_reaches() -> None:
    body = "setp.lt.s32 %p1, %r1, 32;\n@%p1 bra $L__BB0_1;\nbar.sync 0;\n$L__BB0_1:"
    with pytest.raises(Fault, match="never reach"):
        run(body, np.zeros(64, dtype=np.uint32), threads=64)
