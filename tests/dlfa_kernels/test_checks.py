"""Bad input: each entry refuses it before any work and says which argument, what came and what is needed."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from dlfa_kernels import FusedAIF, aif_reference, environment, fused_aif
from dlfa_kernels.checks import ACTIVATIONS
from dlfa_kernels.overrides import record_launches
from dlfa_kernels.parameters import AIFWeights

B, T, E, H, K = 2, 5, 24, 16, 3
ROWS = [0, 2, 5]  # cu_seqlens of the packed form

Arguments = dict[str, Any]
ACTIVATIONS_NAMED = ", ".join(map(repr, ACTIVATIONS))


def weights(dtype: torch.dtype = torch.float32) -> AIFWeights:
    shapes = [(H, E, K), (H,), (E, H, 1), (E,), (H, E), (H,), (E, H), (E,)]
    return AIFWeights._make(torch.ones(shape, dtype=dtype) for shape in shapes)


def arguments(**changes: Any) -> Arguments:
    """Good padded input with some arguments changed."""
    states = {"last": torch.ones(B, T, E), "lower": torch.ones(B, T, E)}
    return {**states, **weights()._asdict(), "mask": torch.ones(B, T, dtype=torch.bool), **changes}


def packed(**changes: Any) -> Arguments:
    """Good packed input with some arguments changed."""
    states = {"last": torch.ones(ROWS[-1], E), "lower": torch.ones(ROWS[-1], E)}
    return {**states, **weights()._asdict(), "cu_seqlens": torch.tensor(ROWS, dtype=torch.int32), **changes}


def as_dtype(dtype: torch.dtype, *names: str) -> Arguments:
    """Good padded input with the named tensors in another dtype."""
    good = arguments()
    return good | {name: good[name].to(dtype) for name in names}


def module(good: Arguments, **options: Any) -> FusedAIF:
    """A module with the weights in `good`."""
    aif = FusedAIF(E, squeeze_dim=H, kernel_size=K, **options)
    aif.load_state_dict(dict(zip(aif.state_dict(), (good[name] for name in AIFWeights._fields), strict=True)))
    return aif.to(good["local_squeeze_weight"].dtype)


def call_module(method: str, good: Arguments) -> Tensor:
    options = {name: good.pop(name) for name in ("fuse", "activation", "backend") if name in good}
    aif = module(good, **options)
    states = {name: value for name, value in good.items() if name not in AIFWeights._fields}
    return getattr(aif, method)(**states)


ENTRIES: dict[str, Callable[[Arguments], Tensor]] = {
    "fused_aif": lambda good: fused_aif(**good),
    "aif_reference": lambda good: aif_reference(**good),
    "FusedAIF": lambda good: call_module("forward", good),
    "FusedAIF.gate": lambda good: call_module("gate", good),
}

integers = torch.int32
# What is wrong; the input; the error; the argument's name, what came, what is needed: all must stand in the message.
STATES: list[tuple[str, Arguments, type[Exception], str, str, str]] = [
    ("no tensor", arguments(last=[1.0]), TypeError, "last", "list", "torch.Tensor"),
    ("nested", arguments(last=torch.nested.nested_tensor([torch.ones(2, E), torch.ones(3, E)]), lower=None, mask=None),
     TypeError, "last", "a nested tensor", "cu_seqlens"),
    ("jagged", arguments(last=torch.nested.nested_tensor([torch.ones(2, E)], layout=torch.jagged), lower=None,
     mask=None), TypeError, "last", "a nested tensor", "cu_seqlens"),
    ("sparse", arguments(lower=torch.ones(B, T, E).to_sparse()), TypeError, "lower", "torch.sparse_coo", "strided"),
    ("sparse mask", arguments(mask=torch.ones(B, T).bool().to_sparse()), TypeError, "mask", "sparse_coo", "strided"),
    ("lower no tensor", arguments(lower=1.0), TypeError, "lower", "float", "torch.Tensor"),
    ("rank 2", arguments(last=torch.ones(T, E)), ValueError, "last", "(5, 24)", "(B, T, E)"),
    ("rank 4", arguments(last=torch.ones(1, B, T, E)), ValueError, "last", "(1, 2, 5, 24)", "(B, T, E)"),
    ("rank 0", arguments(last=torch.ones(())), ValueError, "last", "()", "(B, T, E)"),
    ("no channels", arguments(last=torch.ones(B, T, 0), lower=None), ValueError, "last", "(2, 5, 0)", "E positive"),
    ("packed without E", packed(last=torch.ones(5, 0), lower=None), ValueError, "last", "(5, 0)", "E positive"),
    ("integer states", as_dtype(torch.int64, "last", "lower"), TypeError, "last", "torch.int64", "float32"),
    ("complex states", as_dtype(torch.complex64, "last", "lower"), TypeError, "last", "torch.complex64", "float32"),
    ("lower too short", arguments(lower=torch.ones(B, T - 1, E)), ValueError, "lower", "(2, 4, 24)", "(2, 5, 24)"),
    ("lower broadcast", arguments(lower=torch.ones(1, T, E)), ValueError, "lower", "(1, 5, 24)", "(2, 5, 24)"),
    ("lower rank", arguments(lower=torch.ones(T, E)), ValueError, "lower", "(5, 24)", "(2, 5, 24)"),
    ("lower dtype", as_dtype(torch.bfloat16, "lower"), TypeError, "lower", "torch.bfloat16", "torch.float32"),
    ("lower device", arguments(lower=torch.ones(B, T, E, device="meta")), ValueError, "lower", "meta", "cpu"),
    ("weights device", arguments(last=torch.ones(B, T, E, device="meta"), lower=None, mask=None), ValueError,
     "local_squeeze_weight", "cpu", "meta"),
    ("select alone", arguments(lower=None, fuse="select"), ValueError, "lower", "None", "fuse='select'"),
    ("mask no tensor", arguments(mask=[[1] * T] * B), TypeError, "mask", "list", "torch.Tensor"),
    ("float mask", arguments(mask=torch.ones(B, T)), TypeError, "mask", "torch.float32", "bool or integer"),
    ("half mask", arguments(mask=torch.ones(B, T).bfloat16()), TypeError, "mask", "torch.bfloat16", "bool or integer"),
    ("mask shape", arguments(mask=torch.ones(B, T + 1).bool()), ValueError, "mask", "(2, 6)", "(2, 5)"),
    ("mask transposed", arguments(mask=torch.ones(T, B).bool()), ValueError, "mask", "(5, 2)", "(2, 5)"),
    ("attention mask", arguments(mask=torch.ones(B, 1, T, T).bool()), ValueError, "mask", "(2, 1, 5, 5)", "(2, 5)"),
    ("mask device", arguments(mask=torch.ones(B, T, device="meta").bool()), ValueError, "mask", "meta", "cpu"),
    ("mask and packed", packed(mask=torch.ones(ROWS[-1]).bool()), ValueError, "mask", "cu_seqlens", "together"),
    ("packed rank", packed(last=torch.ones(B, T, E)), ValueError, "last", "(2, 5, 24)", "(N, E)"),
    ("starts late", packed(cu_seqlens=torch.tensor([1, 2, 5], dtype=integers)), ValueError, "cu_seqlens", "1", "0"),
    ("ends early", packed(cu_seqlens=torch.tensor([0, 2, 4], dtype=integers)), ValueError, "cu_seqlens", "4", "N = 5"),
    ("ends late", packed(cu_seqlens=torch.tensor([0, 2, 6], dtype=integers)), ValueError, "cu_seqlens", "6", "N = 5"),
    ("decreasing", packed(cu_seqlens=torch.tensor([0, 4, 2, 5], dtype=integers)), ValueError,
     "cu_seqlens", "4 then 2 at position 2", "must not decrease"),
    ("long cu_seqlens", packed(cu_seqlens=torch.tensor(ROWS)), TypeError, "cu_seqlens", "torch.int64", "int32"),
    ("float cu_seqlens", packed(cu_seqlens=torch.tensor(ROWS).float()), TypeError, "cu_seqlens", "float32", "int32"),
    ("matrix cu_seqlens", packed(cu_seqlens=torch.tensor([ROWS], dtype=integers)), ValueError,
     "cu_seqlens", "(1, 3)", "(B+1,)"),
    ("no cu_seqlens", packed(cu_seqlens=torch.tensor([], dtype=integers)), ValueError, "cu_seqlens", "(0)", "(B+1,)"),
    ("no sequence", packed(cu_seqlens=torch.zeros(1, dtype=integers)), ValueError,
     "cu_seqlens", "(1)", "B at least 1 for the N = 5 rows"),
    ("list cu_seqlens", packed(cu_seqlens=ROWS), TypeError, "cu_seqlens", "list", "torch.Tensor"),
    ("cu_seqlens device", packed(cu_seqlens=torch.zeros(3, dtype=integers, device="meta")), ValueError,
     "cu_seqlens", "meta", "cpu"),
    ("negative token", arguments(token=-1), ValueError, "token", "-1", "negative"),
    ("token of T", arguments(token=T), ValueError, "token", "5", "less than T = 5"),
    ("packed token of N", packed(token=ROWS[-1]), ValueError, "token", "5", "less than N = 5"),
    ("negative packed token", packed(token=-2), ValueError, "token", "-2", "negative"),
    ("bool token", arguments(token=True), TypeError, "token", "True", "int"),
    ("float token", arguments(token=0.0), TypeError, "token", "0.0", "int"),
    ("tensor token", arguments(token=torch.tensor(1)), TypeError, "token", "tensor(1)", "int"),
    ("unknown fuse", arguments(fuse="add"), ValueError, "fuse", "'add'", "'gate', 'select'"),
    ("no fuse", arguments(fuse=None), ValueError, "fuse", "None", "'gate', 'select'"),
    ("unknown activation", arguments(activation="no-such"), ValueError, "activation", "'no-such'", ACTIVATIONS_NAMED),
    ("float64 under float32 states", as_dtype(torch.float64, *AIFWeights._fields), TypeError,
     "parameters", "torch.float64", "torch.float32"),
    ("half under float32 states", as_dtype(torch.float16, *AIFWeights._fields), TypeError,
     "parameters", "torch.float16", "torch.float32"),
]  # fmt: skip
WEIGHTS: list[tuple[str, Arguments, type[Exception], str, str, str]] = [
    ("weight no tensor", arguments(global_squeeze_bias=None), TypeError, "global_squeeze_bias", "NoneType", "Tensor"),
    ("even kernel", arguments(local_squeeze_weight=torch.ones(H, E, 2)), ValueError,
     "local_squeeze_weight", "(16, 24, 2)", "kernel_size k odd"),
    ("no kernel", arguments(local_squeeze_weight=torch.ones(H, E, 0)), ValueError,
     "local_squeeze_weight", "(16, 24, 0)", "kernel_size k odd"),
    ("no width", arguments(local_squeeze_weight=torch.ones(0, E, K)), ValueError,
     "local_squeeze_weight", "(0, 24, 3)", "H positive"),
    ("kernel rank", arguments(local_squeeze_weight=torch.ones(H, E)), ValueError,
     "local_squeeze_weight", "(16, 24)", "(H, E, k)"),
    ("other E", arguments(local_squeeze_weight=torch.ones(H, E + 8, K)), ValueError,
     "local_squeeze_weight", "(16, 32, 3)", "one E"),
    ("mixed weights", as_dtype(torch.bfloat16, "global_expand_weight"), TypeError,
     "global_expand_weight", "torch.bfloat16", "torch.float32"),
    ("first weight of another dtype", as_dtype(torch.float16, "local_squeeze_weight"), TypeError,
     "local_squeeze_weight", "torch.float16", "torch.float32"),
    ("weight device", arguments(global_expand_bias=torch.ones(E, device="meta")), ValueError,
     "global_expand_bias", "meta, without values: offloaded", "cpu"),
    *(
        (f"shape of {name}", arguments(**{name: torch.ones(3, *value.shape[1:])}), ValueError,
         name, str((3, *value.shape[1:])).replace(",)", ")"), str(tuple(value.shape)))
        for name, value in weights()._asdict().items() if name != "local_squeeze_weight"
    ),
]  # fmt: skip
BACKEND = ("unknown backend", arguments(backend="cuda"), ValueError, "backend", "'cuda'", "'auto', 'triton', 'eager'")


def cases() -> list[Any]:
    table = []
    for entry in ENTRIES:
        rows = STATES + (WEIGHTS if entry in ("fused_aif", "aif_reference") else [])
        rows = rows + ([BACKEND] if entry in ("fused_aif", "FusedAIF") else [])
        table += [pytest.param(entry, *row[1:], id=f"{entry}-{row[0]}") for row in rows]
    return table


@pytest.mark.parametrize(("entry", "bad", "error", "argument", "came", "needed"), cases())
def test_bad_input_is_refused_and_named(
    entry: str, bad: Arguments, error: type[Exception], argument: str, came: str, needed: str
) -> None:
    with record_launches() as launches, pytest.raises(error) as raised:
        ENTRIES[entry](dict(bad))
    message = str(raised.value)
    assert re.search(rf"\b{argument}\b", message), message
    assert came in message, message
    assert needed in message, message
    assert "\n" not in message
    assert not launches


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("good", [arguments(), packed(), arguments(token=T - 1), packed(token=ROWS[-1] - 1)], ids=str)
def test_good_input_passes(entry: str, good: Arguments) -> None:
    assert ENTRIES[entry](dict(good)).isfinite().all()


@pytest.mark.parametrize(
    ("options", "error", "argument", "came", "needed"),
    [
        ({"embed_dim": 0}, ValueError, "embed_dim", "0", "positive"),
        ({"embed_dim": -8}, ValueError, "embed_dim", "-8", "positive"),
        ({"embed_dim": 24.0}, TypeError, "embed_dim", "24.0", "int"),
        ({"embed_dim": None}, TypeError, "embed_dim", "None", "int"),
        ({"reduction": 0}, ValueError, "reduction", "0", "positive"),
        ({"reduction": 0.5}, TypeError, "reduction", "0.5", "int"),
        ({"squeeze_dim": 0}, ValueError, "squeeze_dim", "0", "positive"),
        ({"squeeze_dim": True}, TypeError, "squeeze_dim", "True", "int"),
        ({"kernel_size": 2}, ValueError, "kernel_size", "2", "odd"),
        ({"kernel_size": 0}, ValueError, "kernel_size", "0", "odd"),
        ({"kernel_size": -1}, ValueError, "kernel_size", "-1", "positive"),
        ({"kernel_size": (3,)}, TypeError, "kernel_size", "(3,)", "int"),
        ({"kernel_size": True}, TypeError, "kernel_size", "True", "int"),
        ({"fuse": "Gate"}, ValueError, "fuse", "'Gate'", "'gate', 'select'"),
        ({"activation": torch.relu}, ValueError, "activation", "relu", ACTIVATIONS_NAMED),
        ({"backend": "cuda"}, ValueError, "backend", "'cuda'", "'auto', 'triton', 'eager'"),
        ({"gate_bias": "high"}, TypeError, "gate_bias", "'high'", "number"),
        ({"gate_bias": None}, TypeError, "gate_bias", "None", "number"),
        ({"gate_bias": float("nan")}, ValueError, "gate_bias", "nan", "finite"),
        ({"dtype": torch.int64}, TypeError, "dtype", "torch.int64", "float"),
    ],
)
def test_module_refuses_bad_settings(
    options: Arguments, error: type[Exception], argument: str, came: str, needed: str
) -> None:
    with pytest.raises(error) as raised:
        FusedAIF(**{"embed_dim": E, **options})
    message = str(raised.value)
    assert re.search(rf"\b{argument}\b", message), message
    assert came in message, message
    assert needed in message, message


def test_module_refuses_states_of_another_width() -> None:
    with pytest.raises(ValueError, match=r"last and local_squeeze_weight .*, got \(2, 5, 32\) and \(16, 24, 3\)"):
        module(arguments())(torch.ones(B, T, E + 8))


@pytest.mark.parametrize("states", [torch.bfloat16, torch.float16])
def test_float32_weights_go_with_half_states(states: torch.dtype) -> None:
    good = as_dtype(states, "last", "lower")
    assert fused_aif(**good).dtype == aif_reference(**good).dtype == states


def test_weights_of_another_half_dtype_are_refused() -> None:
    bad = as_dtype(torch.bfloat16, *AIFWeights._fields) | as_dtype(torch.float16, "last", "lower")
    bad |= {name: bad[name].bfloat16() for name in AIFWeights._fields}
    with pytest.raises(TypeError, match=r"parameters .*torch\.float16, got torch\.bfloat16"):
        fused_aif(**bad)


def test_autocast_brings_no_float64_weights_to_other_states() -> None:
    refused = pytest.raises(TypeError, match=r"parameters .*torch\.float32, got torch\.float64")
    with torch.autocast("cpu", dtype=torch.bfloat16), refused:
        fused_aif(**as_dtype(torch.float64, *AIFWeights._fields))


def test_triton_refuses_float64() -> None:
    with pytest.raises(TypeError, match="float64"):
        fused_aif(**as_dtype(torch.float64, "last", "lower", *AIFWeights._fields), backend="triton")


@pytest.mark.parametrize(
    ("variable", "read"), [("DLFA_VALIDATE", environment.validate), ("DLFA_AUTOTUNE", environment.autotune)]
)
def test_switches_of_the_environment(variable: str, read: Callable[[], bool], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(variable, raising=False)
    assert not read()
    for value, expected in [("", False), ("0", False), ("1", True)]:
        monkeypatch.setenv(variable, value)
        assert read() == expected
    for value in ("true", "yes", "2", " 1"):
        monkeypatch.setenv(variable, value)
        with pytest.raises(ValueError, match=f"{variable} must be 0 or 1, got '{value}'"):
            read()


def test_unknown_backend_in_the_environment_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DLFA_BACKEND", "cuda")
    with pytest.raises(ValueError, match="DLFA_BACKEND must be one of 'auto', 'triton', 'eager', got 'cuda'"):
        fused_aif(**arguments())


@pytest.mark.gpu
def test_cu_seqlens_on_a_gpu_are_read_only_when_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    bad = {name: value.cuda() for name, value in packed().items()}
    bad["cu_seqlens"] = torch.tensor([0, 4, 2, 5], dtype=torch.int32, device="cuda")
    monkeypatch.setenv("DLFA_VALIDATE", "1")
    with pytest.raises(ValueError, match="cu_seqlens must not decrease"):
        fused_aif(**bad, backend="eager")
    monkeypatch.setenv("DLFA_VALIDATE", "0")
    good = {name: value.cuda() for name, value in packed().items()}
    torch.cuda.set_sync_debug_mode("error")
    try:
        fused_aif(**good, backend="triton")
    finally:
        torch.cuda.set_sync_debug_mode("default")
