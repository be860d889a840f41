"""What the compiler made of a kernel is found again without Triton, and only where Triton would find the same."""

from __future__ import annotations

import logging
import os
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from inspect import signature
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton", reason="triton is there on Linux only")

from triton import FutureKernel
from triton.backends.compiler import GPUTarget
from triton.compiler import make_backend
from triton.runtime.errors import OutOfResources
from triton.runtime.jit import JITFunction, create_function_from_signature

from benchmarks.calls import meta_weights
from benchmarks.cases import Case
from dlfa_kernels import FusedAIF, launches, passes
from dlfa_kernels.launches import Launch, run_in_order, specialization_of
from dlfa_kernels.operands import Inputs, max_row_stride
from dlfa_kernels.overrides import overrides, record_launches, using_l2_share, using_tiles
from dlfa_kernels.settings import Settings
from dlfa_kernels.tiles import CAPS, choose_tiles

MEMORY = torch.zeros(1024, dtype=torch.uint8)
launches_itself = pytest.mark.skipif(
    bool(os.environ.get("DLFA_TEST_PTX")), reason="another `Launch.run` stands in its place under DLFA_TEST_PTX"
)


class Compiler:
    """Stands for a kernel, and for what is compiled from it: notes which of the two is launched, and with what."""

    def __init__(self) -> None:
        self.launched: list[tuple[Any, ...]] = []

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        def launch(*arguments: Any, **named: Any) -> Compiler:
            self.launched.append((grid, arguments, named))
            return self

        return launch


def tensor(dtype: torch.dtype, offset: int) -> Tensor:
    """A tensor whose data begins `offset` bytes behind a multiple of 16."""
    begin = -MEMORY.data_ptr() % 16 + offset
    return MEMORY[begin : begin + 64].view(dtype)


@launches_itself
def test_compiled_once_for_each_kind_of_arguments() -> None:
    kernel, compiled, device = Compiler(), {}, torch.device("cuda", 0)

    def run(value: Tensor | None, size: int, device: torch.device = device) -> None:
        arguments = {"x_ptr": value, "size": size}
        launch = Launch(kernel, (3,), arguments, {"BLOCK": 16}, 4, 2, 255, compiled)
        launch.run(launch.specialization_key(device))

    run(MEMORY, 5)
    options = {"num_warps": 4, "num_stages": 2, "enable_fp_fusion": True, "maxnreg": 255}
    assert kernel.launched == [((3,), (), {"x_ptr": MEMORY, "size": 5, "BLOCK": 16, **options})]
    run(MEMORY, 7)
    assert kernel.launched[1:] == [((3, 1, 1), (MEMORY, 7, 16), {})]
    assert len(compiled) == 1
    for count, (value, size) in enumerate(
        [(None, 5), (MEMORY.float(), 5), (tensor(torch.uint8, 1), 5), (MEMORY, 1), (MEMORY, 32), (MEMORY, 2**31)]
    ):
        run(value, size)
        assert len(compiled) == count + 2
    run(MEMORY, 5, torch.device("cuda", 1))
    assert len(compiled) == 8


@launches_itself
def test_threads_that_launch_at_once_compile_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """While kernels compile in parallel, Triton has futures in place of them for all threads."""
    compiling, begin = threading.Event(), threading.Barrier(4)
    compiled_times: list[int] = []

    class Kernel:
        def __getitem__(self, grid: tuple[int, ...]) -> Any:
            return lambda **_: "future" if compiling.is_set() else Compiler()

    def compile_slowly(fresh: list[Launch]) -> None:
        compiling.set()
        time.sleep(0.05)
        compiling.clear()
        compiled_times.append(len(fresh))

    monkeypatch.setattr(launches, "_compile", compile_slowly)
    planned = [Launch(Kernel(), (1,), {}, {}, 4, 2, None, {}) for _ in range(2)]

    def run() -> list[Any]:
        begin.wait()
        return run_in_order(planned, torch.device("cpu"))

    with ThreadPoolExecutor(4) as threads:
        results = [thread.result() for thread in [threads.submit(run) for _ in range(4)]]
    assert compiled_times == [2]
    kept = [next(iter(launch.compiled.values())) for launch in planned]
    assert all(isinstance(compiled, Compiler) for compiled in kept)
    assert all(result == kept for result in results)


@launches_itself
def test_a_kernel_is_kept_and_not_its_future() -> None:
    """Of a first call that Ctrl-C interrupts while kernels compile, Triton keeps futures."""
    future: Future[Compiler] = Future()
    future.set_result(Compiler())
    # one, called with the compiled kernel, and since Triton 3.9 another, called if there is none
    callbacks = {name: lambda _: None for name in signature(FutureKernel).parameters if name != "future"}

    class Kernel:
        def __getitem__(self, grid: tuple[int, ...]) -> Any:
            return lambda **_: FutureKernel(**callbacks, future=future)

    launch = Launch(Kernel(), (1,), {}, {}, 4, 2, None, {})
    for _ in range(2):
        assert launch.run(()) is future.result()


@pytest.mark.parametrize("fill", [0.3, 0.6])
@pytest.mark.parametrize(("batch", "length", "squeeze_dim"), [(256, 128, 192), (64, 512, 192), (128, 512, 256)])
def test_programs_share_the_tiles_that_are_not_padding(
    batch: int, length: int, squeeze_dim: int, fill: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where splits and tiles of a sequence have a common divisor, some programs would get the first tiles alone."""
    for module in ("tiles", "full_passes"):
        monkeypatch.setattr(f"dlfa_kernels.{module}.multiprocessors", lambda device: 132)
    states = torch.empty(batch, length, 4 * squeeze_dim, dtype=torch.bfloat16, device="meta")
    weights = meta_weights(4 * squeeze_dim, squeeze_dim, kernel_size=1)
    mask = torch.empty(batch, length, dtype=torch.bool, device="meta")
    inputs = Inputs(states, states, states, mask, None, weights)
    settings = Settings("gate", "relu", torch.bfloat16)
    with record_launches("sm_90") as launched:
        passes.backward(inputs, settings, passes.forward(inputs._replace(dz=None), settings))
    (launch,) = (item for item in launched if item.kernel.__name__ == "input_grads_kernel")
    sequences, splits = launch.constants["SEQUENCES"], launch.grid[1]
    tokens = launch.constants["BLOCK_T"] // sequences
    slots, rotation = launch.arguments["end_slot"], launch.arguments["rotation"]
    lengths = Case((batch, length, 4 * squeeze_dim), squeeze_dim, fill=fill).lengths
    work = [0] * splits
    for turn, program in product(range(-(-slots // splits)), range(splits)):
        place = turn * splits + (program + turn * rotation) % splits
        group, tile = divmod(slots - 1 - place, -(-length // tokens))
        longest = max(lengths[sequences * group : sequences * (group + 1)], default=0)
        work[program] += place < slots and longest > tile * tokens
    assert max(work) <= 1.1 * sum(work) / splits


def arguments_kernel(x_ptr, y_ptr, stride, count):  # type: ignore[no-untyped-def]
    pass


@launches_itself
def test_arguments_of_one_kind_are_one_to_triton() -> None:
    function = JITFunction(arguments_kernel, do_not_specialize=["count"])
    backend = make_backend(GPUTarget("cuda", 90, 32))
    bind = create_function_from_signature(function.signature, function.params, backend)
    states = [None, *(tensor(dtype, 4 * n) for dtype, n in product((torch.float32, torch.bfloat16), range(5)))]
    sizes = (0, 1, 2, 15, 16, 17, 768, 2**31 - 1, 2**31, 2**31 + 16, 2**40)
    by_key: dict[Any, set[str]] = {}
    for x, stride, count in product(states, sizes, sizes):
        arguments = {"x_ptr": x, "y_ptr": MEMORY, "stride": stride, "count": count}
        single: dict[Any, Any] = {}
        launch = Launch(Compiler(), (1,), arguments, {}, 4, 2, None, single)
        launch.run(launch.specialization_key(torch.device("cpu")))
        by_key.setdefault(next(iter(single)), set()).add(str(bind(**arguments)[1]))
    assert all(len(specializations) == 1 for specializations in by_key.values())
    assert len(by_key) > 20


def specialized_arguments(launch: Launch) -> dict[str, Any]:
    """What Triton compiles for, of each argument that it may compile for."""
    declared = vars(launch.kernel).get("kwargs") or vars(launch.kernel)  # of an interpreted kernel, of a compiled one
    general = declared.get("do_not_specialize") or ()
    return {name: specialization_of(value) for name, value in launch.arguments.items() if name not in general}


@pytest.mark.parametrize("form", ["padded", "packed"])
def test_other_lengths_compile_nothing_more(form: str) -> None:
    weights = FusedAIF(24, device="meta").weights
    starts = None if form == "padded" else torch.empty(3, dtype=torch.int32, device="meta")
    specializations = []
    for length in (1000, 1100, 1231):
        states = torch.empty((2, length, 24) if form == "padded" else (length, 24), device="meta")
        with record_launches("sm_90") as launches:
            passes.forward(Inputs(states, None, None, None, starts, weights), Settings("gate", "relu", states.dtype))
        specializations.append(
            [(launch.kernel, launch.constants, specialized_arguments(launch)) for launch in launches]
        )
    assert len(specializations[0]) == 4
    assert specializations[0] == specializations[1] == specializations[2]


@pytest.mark.parametrize("kernel_size", [1, 601])
@pytest.mark.parametrize("too_far", [False, True])
def test_tokens_too_far_apart_for_offsets_of_32_bits_are_copied(too_far: bool, kernel_size: int) -> None:
    stride = max_row_stride(kernel_size) + too_far
    # from a tile's first row its last one, and the neighbour that the last tap of that one reads
    furthest = max(vars(CAPS["warpgroup", 2, 2]).values(), key=lambda tile: tile.block_t).block_t + kernel_size // 2
    assert too_far or (furthest + 1) * stride < 1 << 31
    states = torch.empty_strided((1, 2, 24), (2 * stride, stride, 1), device="meta")
    weights = FusedAIF(24, kernel_size=kernel_size, device="meta").weights
    with record_launches("sm_90") as launches:
        passes.forward(Inputs(states, None, None, None, None, weights), Settings("gate", "relu", states.dtype))
    strides = [launch.arguments["x_row_stride"] for launch in launches if "x_row_stride" in launch.arguments]
    assert strides == [24 if too_far else stride] * 2


class ShortOfMemory:
    """A kernel that a device has room for with few pipeline stages."""

    __name__ = "short_kernel"

    def __init__(self, most_stages: int) -> None:
        self.most_stages = most_stages

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        def launch(*, num_stages: int, **_: object) -> str:
            if num_stages > self.most_stages:
                raise OutOfResources(num_stages << 16, self.most_stages << 16, "shared memory")
            return f"with {num_stages} stages"

        return launch


def test_what_does_not_fit_is_launched_with_fewer_stages(caplog: pytest.LogCaptureFixture) -> None:
    compiled: dict[Any, Any] = {}
    launch = Launch(ShortOfMemory(1), (1,), {}, {}, num_warps=4, num_stages=3, compiled=compiled)
    with caplog.at_level(logging.WARNING, logger="dlfa_kernels.launches"):
        assert launch.run(("key",)) == compiled["key",] == "with 1 stages"
    assert [record.getMessage().split("; ")[1] for record in caplog.records] == [
        "launched with 2 pipeline stages", "launched with 1 pipeline stages"
    ]  # fmt: skip
    never = Launch(ShortOfMemory(0), (1,), {}, {}, num_warps=4, num_stages=2, compiled={})
    with pytest.raises(OutOfResources, match="shared memory"):
        never.run(("key",))
    with using_tiles(choose_tiles(24, 16, torch.float32)), pytest.raises(OutOfResources):
        launch._replace(compiled={}).run(("key",))  # a tile that is tried counts as it is


def test_what_a_block_changes_ends_with_an_error_too() -> None:
    before, changed = overrides(), []

    def fail() -> None:
        changed.append(overrides())
        raise RuntimeError("in the middle")

    for block in (record_launches("sm_80"), using_tiles(choose_tiles(24, 16, torch.float32)), using_l2_share(0.5)):
        with pytest.raises(RuntimeError, match="in the middle"), block:
            fail()
        assert overrides() == before != changed[-1]


def test_options_fuse_multiply_and_add_and_bound_registers_where_there_is_a_bound() -> None:
    launch = Launch(None, (1,), {}, {}, 8, 3)
    options = {"num_warps": 8, "num_stages": 3, "enable_fp_fusion": True}
    assert launch.options == options
    assert launch._replace(maxnreg=128).options == options | {"maxnreg": 128}
