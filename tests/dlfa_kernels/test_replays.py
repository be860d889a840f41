"""A replay launches what the stages would: the same kernels on the same grids, each pointer that of the same tensor."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from aif_cases import Case, Inputs, make_inputs
from torch import Tensor

pytest.importorskip("triton", reason="triton is there on Linux only")

from dlfa_kernels import launches, operands, passes, replays
from dlfa_kernels.launches import Launch
from dlfa_kernels.overrides import record_launches, using_l2_share
from dlfa_kernels.replays import POINTER_ALIGNMENT
from dlfa_kernels.results import BackwardResult, ForwardResult
from dlfa_kernels.settings import Settings

Launched = tuple[str, tuple[int, ...], tuple[Any, ...]]  # kernel, grid, values in the kernel's order
HALF = {"dtype": torch.bfloat16, "weight_dtype": torch.bfloat16}


class Compiled:
    """Stands for what the compiler made of a kernel: notes its launches in `launched`."""

    def __init__(self, name: str, launched: list[Launched]) -> None:
        self.name, self.launched = name, launched

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        return lambda *values, stream: self.launched.append((self.name, grid, values))


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> list[Launched]:
    """What replays launch; nothing else is, and results stay unwritten."""
    noted: list[Launched] = []
    monkeypatch.setattr(Launch, "run", lambda launch, key: Compiled(launch.kernel.__name__, noted))
    monkeypatch.setattr(replays, "driver", SimpleNamespace(active=SimpleNamespace(get_current_stream=lambda index: 7)))
    monkeypatch.setattr(launches, "_compile", lambda launches: None)
    monkeypatch.setattr(replays, "_replays", {})
    return noted


def pass_arguments(case: Case, inputs: Inputs, dz: Tensor | None) -> tuple[operands.Inputs, Settings]:
    tensors = operands.Inputs(inputs.last, inputs.lower, dz, inputs.mask, inputs.cu_seqlens, inputs.weights)
    return tensors, Settings(case.fuse, case.activation, inputs.last.dtype, case.token)


def forward(case: Case, inputs: Inputs) -> ForwardResult:
    return passes.forward(*pass_arguments(case, inputs, None))


def backward(case: Case, inputs: Inputs, saved: ForwardResult) -> BackwardResult:
    tensors, settings = pass_arguments(case, inputs, inputs.dz if case.token is None else inputs.dz_token)
    return passes.backward(tensors, settings._replace(needs_dx=not case.frozen), saved)


def assert_same_launches(actual: list[Launched], expected: list[Launch]) -> dict[int, int]:
    """The pointers of `actual` by those of `expected`; fail where they do not correspond one to one, or buffers meet.

    Pointers of operands are the same in both; results and buffers are each call's own, as aligned as they were when the
    code was compiled.
    """
    assert [name for name, _, _ in actual] == [launch.kernel.__name__ for launch in expected]
    found: dict[int, int] = {}
    sizes: dict[int, int] = {}
    for (_, grid, values), launch in zip(actual, expected, strict=True):
        assert grid == (*launch.grid, 1, 1)
        wanted = [*launch.arguments.values(), *launch.constants.values()]
        for value, want in zip(values, wanted, strict=True):
            if isinstance(want, Tensor):
                assert found.setdefault(want.data_ptr(), value) == value
                assert value % POINTER_ALIGNMENT == want.data_ptr() % POINTER_ALIGNMENT
                sizes[value] = want.untyped_storage().nbytes()
            else:
                assert value is want or (type(value) is type(want) and value == want)
    assert len(set(found.values())) == len(found)
    for pointer, next_one in pairwise(sorted(found.values())):
        assert pointer == 0 or pointer + sizes[pointer] <= next_one
    return found


CASES = [
    Case(length=70, **HALF),
    Case(length=70, mask="none", lower=False, activation="relu", **HALF),
    Case(length=300, fuse="select", kernel_size=3, weight_dtype=torch.float32, dtype=torch.bfloat16),
    Case(lengths=(0, 70, 3), kernel_size=5, squeeze_dim=300),
    Case(lengths=(4, 0), lower=False, dtype=torch.float16),
    Case(length=9, token=3, kernel_size=3, **HALF),
    Case(lengths=(0, 70, 3), token=0, fuse="select"),
    Case(length=70, frozen=True, **HALF),
    Case(lengths=(0, 70, 3), token=0, fuse="select", frozen=True),
]


def assert_replayed(case: Case, inputs: Inputs, launched: list[Launched]) -> None:
    """Run both passes, which launch by replays, and fail where they differ from what the stages launch."""
    operands = {tensor.data_ptr() for tensor in (inputs.last, inputs.lower, *inputs.weights) if tensor is not None}
    saved = forward(case, inputs)
    for replayed in (lambda: forward(case, inputs), lambda: backward(case, inputs, saved)):
        launched.clear()
        results = replayed()
        with record_launches() as expected:
            plain = replayed()
        by_plain = assert_same_launches(launched, expected)
        assert all(by_plain[pointer] == pointer for pointer in operands & by_plain.keys())
        assert operands & by_plain.keys()
        for tensor, twin in zip(results.tensors, plain.tensors, strict=True):
            assert by_plain.get(twin.data_ptr(), tensor.data_ptr()) == tensor.data_ptr()


@pytest.mark.parametrize("case", CASES, ids=str)
def test_replays_launch_what_the_stages_do(case: Case, launched: list[Launched]) -> None:
    for seed in (1, 2):
        first = make_inputs(case.but(seed=seed))
        backward(case, first, forward(case, first))
    assert not launched
    assert_replayed(case, make_inputs(case), launched)


def test_packed_batches_of_about_as_many_rows_are_launched_alike(launched: list[Launched]) -> None:
    case = Case(lengths=(0, 70, 3, 57))
    for lengths in ((0, 70, 3, 57), (80, 0, 0, 60)):
        first = make_inputs(case.but(lengths=lengths))
        backward(case, first, forward(case, first))
    assert not launched
    assert_replayed(case, make_inputs(case.but(lengths=(1, 2, 3, 250))), launched)
    launched.clear()
    forward(case, make_inputs(case.but(lengths=(1, 2, 3, 251))))
    assert not launched


def test_groups_are_replayed_too(launched: list[Launched], monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case(batch=6, length=300, embed_dim=64, **HALF)
    monkeypatch.setattr("dlfa_kernels.groups.l2_bytes", lambda device: 2 * 300 * 64 * 2 * 3)
    with using_l2_share(0.5):
        for seed in (1, 2):
            first = make_inputs(case.but(seed=seed))
            backward(case, first, forward(case, first))
        assert_replayed(case, make_inputs(case), launched)
    assert len(launched) > 7


def test_one_tensor_given_twice_teaches_nothing(launched: list[Launched]) -> None:
    case = Case(length=5)
    same, apart = make_inputs(case), make_inputs(case.but(seed=1))
    same.lower = same.last
    for inputs in (same, same, same, apart):  # only from the last one can x and y be told apart
        forward(case, inputs)
    assert not launched
    for inputs in (apart, same):
        launched.clear()
        forward(case, inputs)
        with record_launches() as expected:
            forward(case, inputs)
        names = list(expected[0].arguments)
        _, _, values = launched[0]
        for name, tensor in (("x_ptr", inputs.last), ("y_ptr", inputs.lower)):
            assert values[names.index(name)] == tensor.data_ptr()


def misaligned(states: Tensor) -> Tensor:
    room = states.new_empty(states.numel() + 8)
    return room[1 : 1 + states.numel()].view(states.shape).copy_(states)


def transposed(states: Tensor) -> Tensor:
    return states.transpose(0, 1).contiguous().transpose(0, 1)


@pytest.mark.parametrize(
    ("case", "changes"),
    [*((Case(), changes) for changes in (
        {"length": 13}, {"batch": 3}, {"squeeze_dim": 24}, {"embed_dim": 40}, {"kernel_size": 3}, {"fuse": "select"},
        {"activation": "relu"}, {"lower": False}, {"mask": "none"}, {"token": 1}, {"dtype": torch.float16},
     )),
     (Case(lengths=(12, 12)), {"lengths": (24,)}),
     (Case(lengths=(64, 64)), {"lengths": (64, 65)}),
     (Case(token=0), {"token": 1}),
     (Case(token=0), {"dtype": torch.float16}),
     (Case(**HALF), {"weight_dtype": torch.float32})],
    ids=str,
)  # fmt: skip
def test_other_calls_are_not_taken_for_it(case: Case, changes: dict[str, Any], launched: list[Launched]) -> None:
    other = case.but(**changes)
    for _ in range(2):
        forward(case, make_inputs(case))
    for _ in range(2):
        forward(other, make_inputs(other))
    assert not launched
    forward(case, make_inputs(case))
    assert launched


@pytest.mark.parametrize("token", [None, 0])
def test_backwards_of_frozen_states_are_not_taken_for_others(token: int | None, launched: list[Launched]) -> None:
    case = Case(token=token)
    frozen, inputs = case.but(frozen=True), make_inputs(case)
    saved = forward(case, inputs)
    for kind in (case, case, frozen, frozen):
        backward(kind, inputs, saved)
    assert not launched
    backward(frozen, inputs, saved)
    assert len(launched) == 4


@pytest.mark.parametrize("layout", [misaligned, transposed])
def test_other_layouts_are_not_taken_for_it(layout: Callable[[Tensor], Tensor], launched: list[Launched]) -> None:
    case = Case()
    inputs = make_inputs(case)
    for _ in range(2):
        saved = forward(case, inputs)
        backward(case, inputs, saved)
    for name in ("last", "lower"):
        moved = make_inputs(case)
        setattr(moved, name, layout(getattr(moved, name)))
        forward(case, moved)
        assert not launched
    inputs.dz = layout(inputs.dz)
    backward(case, inputs, saved)
    assert not launched


@pytest.mark.parametrize(
    ("case", "name", "change"),
    [
        (Case(), "mask", Tensor.long),
        (Case(), "mask", transposed),
        (Case(lengths=(0, 5, 7)), "cu_seqlens", lambda starts: starts.repeat_interleave(2)[::2]),
    ],
    ids=["dtype of the mask", "layout of the mask", "layout of cu_seqlens"],
)
def test_another_kind_of_mask_or_starts_is_not_taken_for_it(
    case: Case, name: str, change: Callable[[Tensor], Tensor], launched: list[Launched]
) -> None:
    for _ in range(2):
        forward(case, make_inputs(case))
    other = make_inputs(case)
    setattr(other, name, change(getattr(other, name)))
    forward(case, other)
    assert not launched


@pytest.mark.parametrize("name", ["global_squeeze_weight", "local_expand_weight"])
def test_copies_are_replayed_where_they_lie(name: str, launched: list[Launched]) -> None:
    case = Case()
    for _ in range(2):
        forward(case, make_inputs(case))
    columns = make_inputs(case)
    weight = getattr(columns.weights, name)
    columns.weights = columns.weights._replace(**{name: weight.transpose(0, 1).contiguous().transpose(0, 1)})
    for _ in range(2):
        forward(case, columns)
    assert not launched
    forward(case, columns)
    with record_launches() as expected:
        forward(case, columns)
    given = getattr(columns.weights, name).data_ptr()
    by_plain = assert_same_launches(launched, expected)
    assert given not in by_plain.values()


def test_aligned_copies_are_not_taken_for_weights_as_given(launched: list[Launched]) -> None:
    """Both copy one weight, and another begins at an odd place: the first call copies that too, and so aligns it."""
    case = Case()

    def columns(weight: Tensor) -> Tensor:
        return misaligned(weight.transpose(0, 1)).transpose(0, 1)

    def with_weights(layout: Callable[[Tensor], Tensor]) -> Inputs:
        inputs = make_inputs(case)
        weights = inputs.weights
        inputs.weights = weights._replace(
            global_squeeze_weight=layout(weights.global_squeeze_weight),
            global_expand_weight=columns(weights.global_expand_weight),
        )
        return inputs

    for _ in range(2):
        forward(case, with_weights(columns))
    forward(case, with_weights(misaligned))
    assert not launched


def test_a_weight_that_is_copied_is_not_taken_for_one_that_is_used_as_it_is(launched: list[Launched]) -> None:
    """Of kernel size 3 the weight is used as it is where it is stored tap by tap, which is not contiguous either."""
    case = Case(kernel_size=3)

    def with_weight(layout: Callable[[Tensor], Tensor]) -> Inputs:
        inputs = make_inputs(case)
        squeeze = layout(inputs.weights.local_squeeze_weight)
        assert not squeeze.is_contiguous()
        inputs.weights = inputs.weights._replace(local_squeeze_weight=squeeze)
        return inputs

    for _ in range(2):
        forward(case, with_weight(lambda weight: weight.permute(2, 0, 1).contiguous().permute(1, 2, 0)))
    forward(case, with_weight(lambda weight: weight.transpose(0, 1).contiguous().transpose(0, 1)))
    assert not launched


def test_equal_strides_are_not_taken_for_equal_shapes(launched: list[Launched]) -> None:
    inputs = make_inputs(Case(lower=False, mask="none"))
    for shape in ((4, 6, -1), (4, 6, -1), (6, 4, -1)):
        inputs.last = torch.ones(inputs.last.shape[-1]).expand(shape)
        forward(Case(lower=False), inputs)
    assert not launched


def test_overrides_and_tuning_have_replays_of_their_own(
    launched: list[Launched], monkeypatch: pytest.MonkeyPatch
) -> None:
    case = Case()
    inputs = make_inputs(case)
    for _ in range(2):
        forward(case, inputs)
    with using_l2_share(0.3):
        for _ in range(2):
            forward(case, inputs)
        assert not launched
        forward(case, inputs)
        assert len(launched) == 3
    monkeypatch.setenv("DLFA_AUTOTUNE", "1")
    forward(case, inputs)
    assert len(launched) == 3


def test_nothing_is_kept_while_tiles_wait_to_be_tuned(
    launched: list[Launched], monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = make_inputs(Case())
    monkeypatch.setattr(replays, "tuning_waits", lambda device: True)  # a CUDA graph is captured
    for _ in range(3):
        forward(Case(), inputs)
    monkeypatch.setattr(replays, "tuning_waits", lambda device: False)
    for _ in range(2):
        forward(Case(), inputs)
        assert not launched
    forward(Case(), inputs)
    assert launched


def test_views_are_neither_operands_nor_buffers() -> None:
    operand, buffer = torch.zeros(64), torch.zeros(64)

    def kept(value: Tensor, operand: Tensor = operand) -> bool:
        launch = Launch(None, (1,), {"x_ptr": operand, "y_ptr": value}, {}, 4, 2)
        return replays._replay_of([launch], [Compiled("kernel", [])], [operand], [operand.data_ptr()]) is not None

    assert kept(operand)
    assert kept(buffer)
    assert not kept(operand[16:])
    assert not kept(buffer[16:])
    assert not kept(buffer, buffer[16:])


def test_nothing_is_kept_of_what_was_not_compiled(launched: list[Launched], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Launch, "run", lambda launch, key: None)
    for _ in range(3):
        forward(Case(), make_inputs(Case()))
    assert not any(replays._replays.values())


def test_what_is_kept_is_bounded(launched: list[Launched], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replays, "MAX_CALLS", 4)
    for case in map(Case, [1] * 12, range(1, 13)):
        assert not launched
        for _ in range(3):
            forward(case, make_inputs(case))
            assert 1 <= len(replays._replays) <= 4
        assert launched
        launched.clear()
