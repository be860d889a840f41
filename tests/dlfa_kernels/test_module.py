"""FusedAIF as a module: defaults, state, copies, devices, choice of backend, and what importing it brings along."""

from __future__ import annotations

import copy
import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.utils.prune
from aif_cases import Case, make_inputs, state_names

from dlfa_kernels import FusedAIF, aif_reference, backends, functional
from dlfa_kernels import device as device_module

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("embed_dim", "options", "squeeze_dim"),
    [
        (768, {}, 192), (768, {"reduction": 4}, 192), (768, {"reduction": 16}, 48), (1024, {}, 256), (384, {}, 96),
        (100, {}, 32), (8, {}, 16), (64, {}, 16), (68, {}, 32),
    ],
)  # fmt: skip
def test_squeeze_width_by_default(embed_dim: int, options: dict[str, int], squeeze_dim: int) -> None:
    assert FusedAIF(embed_dim, **options, device="meta").squeeze_dim == squeeze_dim


def test_squeeze_dim_goes_before_reduction() -> None:
    assert FusedAIF(768, reduction=4, squeeze_dim=50, device="meta").squeeze_dim == 50


@pytest.mark.parametrize("kernel_size", [1, 3])
def test_state_dict_names_and_shapes(kernel_size: int) -> None:
    e, h = 24, 16
    shapes = [(h, e, kernel_size), (h,), (e, h, 1), (e,), (h, e), (h,), (e, h), (e,)]
    state = FusedAIF(e, kernel_size=kernel_size).state_dict()
    assert {name: tuple(value.shape) for name, value in state.items()} == dict(zip(state_names(), shapes, strict=True))


def test_initial_biases() -> None:
    aif = FusedAIF(24, gate_bias=-2.5)
    for _ in range(2):
        assert aif.local_expand.bias.eq(0).all()
        assert aif.global_expand.bias.eq(-2.5).all()
        assert not aif.local_squeeze.bias.eq(0).any()
        torch.nn.init.ones_(aif.local_expand.bias)
        aif.reset_parameters()


def test_every_module_initialises_its_own_parameters() -> None:
    aif = FusedAIF(24, gate_bias=-2.5, device="meta").to_empty(device="cpu")
    for module in aif.modules():  # as FSDP does it for modules on the meta device, in whatever order
        module.reset_parameters()
    assert aif.local_expand.bias.eq(0).all()
    assert aif.global_expand.bias.eq(-2.5).all()
    assert aif.gate_bias == -2.5


def test_layers_without_a_bias_initialise_too() -> None:
    expand = FusedAIF(24).local_expand
    layer = type(expand)(8, 24, 1, bias=False)  # as PEFT's LoRA makes its own
    layer.reset_parameters()
    assert layer.bias is None


def test_a_subclass_is_refused_if_its_forward_is_another() -> None:
    class Doubled(torch.nn.Linear):  # as torch.ao.nn.qat.Linear, which quantizes the weight in its forward
        def forward(self, states: torch.Tensor) -> torch.Tensor:
            return 2 * super().forward(states)

    class Named(torch.nn.Linear):
        pass

    aif, states = FusedAIF(24), torch.randn(2, 5, 24)
    z = aif(states)
    for kind in (Named, Doubled):
        layer = kind(24, aif.squeeze_dim)
        layer.load_state_dict(aif.global_squeeze.state_dict())
        aif.global_squeeze = layer
        if kind is Named:
            assert torch.equal(aif(states), z)
    with pytest.raises(TypeError, match=r"global_squeeze must be torch\.nn's own layer.*got .*Doubled; wrap"):
        aif(states)


@pytest.mark.parametrize("name", ["local_squeeze", "local_expand", "global_squeeze", "global_expand"])
def test_a_layer_whose_forward_would_be_skipped_is_refused(name: str) -> None:
    class Adapted(torch.nn.Module):  # as LoRA does it
        def __init__(self, base: torch.nn.Module) -> None:
            super().__init__()
            self.base, self.weight, self.bias = base, base.weight, base.bias

    aif = FusedAIF(24)
    setattr(aif, name, Adapted(getattr(aif, name)))
    for call in (aif, aif.gate):
        with pytest.raises(TypeError, match=rf"{name} must be torch\.nn's own layer.*got .*Adapted; wrap"):
            call(torch.ones(1, 2, 24))


@pytest.mark.parametrize(
    ("change", "made_of"),
    [
        (torch.nn.utils.spectral_norm, "weight_orig"),
        (lambda layer: torch.nn.utils.prune.random_unstructured(layer, "weight", 0.5), "weight_orig"),
    ],
    ids=["spectral_norm", "prune"],
)
@pytest.mark.parametrize("name", ["local_squeeze", "global_expand"])
def test_a_weight_that_a_skipped_hook_would_make_is_refused(
    name: str, change: Callable[[torch.nn.Module], Any], made_of: str
) -> None:
    aif = FusedAIF(24)
    change(getattr(aif, name))
    with pytest.raises(TypeError, match=rf"{name}\.weight must be a parameter, got one that a hook makes of {made_of}"):
        aif(torch.ones(1, 2, 24))


def test_parametrised_layers() -> None:
    aif, states = FusedAIF(24), torch.randn(2, 5, 24)
    plain = aif(states)
    torch.nn.utils.parametrizations.weight_norm(aif.global_expand)
    torch.testing.assert_close(aif(states), plain)
    aif(states).sum().backward()
    assert aif.global_expand.parametrizations.weight.original0.grad.ne(0).any()


def test_gate_bias_sets_the_gate() -> None:
    states = torch.randn(2, 5, 24) / 10
    for bias in (-6.0, 6.0):
        gate = FusedAIF(24, gate_bias=bias).gate(states)
        torch.testing.assert_close(gate, torch.full_like(gate, torch.tensor(bias).sigmoid()), atol=0.05, rtol=0)


def test_state_dict_round_trip() -> None:
    torch.manual_seed(0)
    first, second = FusedAIF(24, kernel_size=3), FusedAIF(24, kernel_size=3)
    states = torch.randn(2, 5, 24)
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    assert not torch.equal(first(states), second(states))
    second.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(first(states), second(states))


def test_state_of_another_kernel_size_is_refused() -> None:
    with pytest.raises(RuntimeError, match=r"local_squeeze\.weight"):
        FusedAIF(24, kernel_size=3).load_state_dict(FusedAIF(24).state_dict())


def test_deepcopy_and_pickle_are_independent_equals() -> None:
    aif = FusedAIF(24, fuse="select", activation="silu", kernel_size=3)
    states = torch.randn(2, 2, 5, 24)
    expected = aif(*states)
    file = io.BytesIO()
    torch.save(aif, file)
    file.seek(0)
    for twin in (copy.deepcopy(aif), torch.load(file, weights_only=False)):
        assert torch.equal(twin(*states), expected)
        torch.nn.init.zeros_(twin.local_expand.weight)
        assert torch.equal(aif(*states), expected)
        assert repr(twin) == repr(aif)


def test_meta_device() -> None:
    aif = FusedAIF(24, kernel_size=3, device="meta", dtype=torch.bfloat16)
    assert all(parameter.is_meta and parameter.dtype == torch.bfloat16 for parameter in aif.parameters())
    states = torch.empty(2, 5, 24, device="meta", dtype=torch.bfloat16)
    mask = torch.empty(2, 5, device="meta", dtype=torch.bool)
    for backend in ("eager", "triton"):
        aif.backend = backend
        z = aif(states, states, mask)
        assert z.is_meta
        assert (z.shape, z.dtype) == (states.shape, states.dtype)
        assert aif(states, states, mask, token=1).shape == (2, 24)
    aif = aif.to_empty(device="cpu")
    aif.backend = "auto"
    aif.reset_parameters()
    assert aif(torch.ones(2, 5, 24, dtype=torch.bfloat16)).isfinite().all()


def test_built_under_a_device_context() -> None:
    with torch.device("meta"):
        assert all(parameter.is_meta for parameter in FusedAIF(24).parameters())


@pytest.mark.parametrize("token", [None, 1])
@pytest.mark.parametrize("lengths", [None, (3, 0, 1, 5)])
def test_gate_is_what_multiplies(lengths: tuple[int, ...] | None, token: int | None) -> None:
    inputs = make_inputs(Case(kernel_size=3, lengths=lengths)).double()
    aif = FusedAIF(24, kernel_size=3, gate_bias=1.0, dtype=torch.float64)
    arguments = {"mask": inputs.mask, "cu_seqlens": inputs.cu_seqlens, "token": token}
    gate = aif.gate(inputs.last, inputs.lower, **arguments)
    states, real = inputs.last + inputs.lower, inputs.mask
    if lengths is not None:  # the token's row of each sequence, or any row where there is none
        rows = inputs.cu_seqlens[:-1] + 1 if token is not None else slice(None)
        real = torch.tensor(lengths) > 1 if token is not None else torch.ones(len(states), dtype=torch.bool)
        states = states[rows]
    elif token is not None:
        states, real = states[:, token], real[:, token]
    assert ((gate > 0) & (gate < 1))[real].all()
    assert gate[~real].eq(0).all()
    torch.testing.assert_close(aif(inputs.last, inputs.lower, **arguments), gate * states)


def test_repr_says_every_setting() -> None:
    aif = FusedAIF(24, squeeze_dim=20, kernel_size=3, fuse="select", activation="gelu", backend="eager")
    first_line = "embed_dim=24, squeeze_dim=20, kernel_size=3, activation='gelu', fuse='select', backend='eager'"
    assert first_line in repr(aif)


@pytest.mark.usefixtures("deterministic")
@pytest.mark.parametrize("backend", ["eager", "triton"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_autocast_keeps_float32_parameters_and_the_states_dtype(
    dtype: torch.dtype, backend: str, device: torch.device
) -> None:
    inputs = make_inputs(Case(dtype=dtype), device)
    aif = FusedAIF(24, backend=backend, device=device)
    plain = aif(inputs.last, inputs.lower, inputs.mask)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        z = aif(inputs.last, inputs.lower, inputs.mask)
    assert z.dtype == dtype
    assert torch.equal(z, plain) == (backend == "eager" or dtype != torch.float32)  # see test_autocast
    z.sum().backward()
    assert all(parameter.grad.dtype == torch.float32 for parameter in aif.parameters())


def test_module_function_and_definition_agree_in_float64() -> None:
    inputs = make_inputs(Case(kernel_size=3, fuse="select")).double()
    aif = FusedAIF(24, kernel_size=3, fuse="select", activation="gelu", dtype=torch.float64)
    z = aif(inputs.last, inputs.lower, inputs.mask)
    assert z.dtype == torch.float64
    options = {"fuse": "select", "activation": "gelu"}
    assert torch.equal(z, aif_reference(inputs.last, inputs.lower, *aif.weights, inputs.mask, **options))


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which implementation each call ran, in order."""
    calls: list[str] = []
    eager, kernels = functional.aif_output, functional.operators.aif

    def note(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *arguments: (calls.append(name), function(*arguments))[1]

    monkeypatch.setattr(functional, "aif_output", note("eager", eager))
    monkeypatch.setattr(functional.operators, "aif", note("triton", kernels))
    monkeypatch.delenv("DLFA_BACKEND", raising=False)
    return calls


def test_choice_of_backend(ran: list[str], monkeypatch: pytest.MonkeyPatch, device: torch.device) -> None:
    states = torch.ones(1, 2, 24, device=device)
    automatic = "triton" if device.type == "cuda" else "eager"
    for environment, backend, expected in [
        (None, "auto", automatic), ("auto", "auto", automatic), ("", "auto", automatic),
        ("triton", "auto", "triton"), ("eager", "auto", "eager"),
        ("eager", "triton", "triton"), ("triton", "eager", "eager"), (None, "triton", "triton"),
    ]:  # fmt: skip
        if environment is not None:
            monkeypatch.setenv("DLFA_BACKEND", environment)
        else:
            monkeypatch.delenv("DLFA_BACKEND", raising=False)
        FusedAIF(24, backend=backend, device=device)(states)
        assert ran.pop() == expected, (environment, backend)
    assert not ran


@pytest.mark.parametrize(
    ("architecture", "runs"),
    [("sm_75", False), ("sm_70", False), ("sm_80", True), ("sm_120", True), ("gfx942", True)],
)
def test_older_gpus_take_the_eager_path(architecture: str, runs: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    on_gpu = SimpleNamespace(is_cuda=True, dtype=torch.float32, device=torch.device("cuda", 0))
    monkeypatch.delenv("DLFA_BACKEND", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for module in (device_module, backends):
        monkeypatch.setattr(module, "device_architecture", lambda device: architecture)
    monkeypatch.setattr(backends, "runs_kernels", device_module.runs_kernels.__wrapped__)
    assert backends.resolve_backend("auto", on_gpu) == ("triton" if runs else "eager")
    if runs:
        assert backends.resolve_backend("triton", on_gpu) == "triton"
    else:
        with pytest.raises(RuntimeError, match=f"compute capability 8.0 or more, got {architecture}; use backend='ea"):
            backends.resolve_backend("triton", on_gpu)


def test_what_the_kernels_cannot_take_is_eager_by_itself_and_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DLFA_BACKEND", raising=False)
    wide = SimpleNamespace(is_cuda=True, dtype=torch.float64, device=torch.device("cuda", 0))
    elsewhere = SimpleNamespace(is_cuda=False, dtype=torch.float32, device=torch.device("mps"))
    for states in (wide, elsewhere):
        assert backends.resolve_backend("auto", states) == "eager"
    with pytest.raises(TypeError, match=r"got torch\.float64; use backend='eager'"):
        backends.resolve_backend("triton", wide)
    with pytest.raises(RuntimeError, match="needs CUDA or ROCm tensors, got mps; use backend='eager'"):
        backends.resolve_backend("triton", elsewhere)


def python(code: str, **environment: str | None) -> subprocess.CompletedProcess[str]:
    """Run `code` in a fresh interpreter; a variable given as None is unset."""
    variables = {name: value for name, value in {**os.environ, **environment}.items() if value is not None}
    return subprocess.run([sys.executable, "-c", code], env=variables, cwd=ROOT, capture_output=True, text=True)


@pytest.mark.parametrize("variables", [{}, {"DLFA_BACKEND": "triton"}], ids=["argument", "environment"])
def test_triton_on_the_cpu_says_what_it_needs(variables: dict[str, str]) -> None:
    backend = "auto" if variables else "triton"
    result = python(
        f"import torch, dlfa_kernels; dlfa_kernels.FusedAIF(24, backend='{backend}')(torch.ones(1, 2, 24))",
        TRITON_INTERPRET=None,
        **variables,
    )
    assert result.returncode == 1
    asked = "DLFA_BACKEND=triton" if variables else "backend='triton'"
    assert result.stderr.splitlines()[-1].startswith(f"RuntimeError: {asked} needs CUDA or ROCm tensors")
    assert "TRITON_INTERPRET=1" in result.stderr


WITHOUT_TRITON = """
import importlib.util, sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "triton":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
find_spec = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name == "triton" else find_spec(name, package)
sys.meta_path.insert(0, Blocker())
import torch, dlfa_kernels
states = torch.ones(1, 2, 24)
assert dlfa_kernels.FusedAIF(24)(states).isfinite().all()
assert "triton" not in sys.modules
try:
    dlfa_kernels.FusedAIF(24, backend="triton")(states)
except RuntimeError as error:
    print(error)
"""


def test_without_triton() -> None:
    result = python(WITHOUT_TRITON)
    assert result.returncode == 0, result.stderr
    assert "backend='triton' needs the triton package" in result.stdout
    assert "backend='eager'" in result.stdout


IMPORT = """
import sys, torch, dlfa_kernels
print(torch.cuda.is_initialized(), *dlfa_kernels.__all__)
print("torch._dynamo" in sys.modules, *{name.split(".")[0] for name in sys.modules})
"""


def test_what_an_import_brings() -> None:
    result = python(IMPORT)
    assert result.returncode == 0, result.stderr
    (cuda_started, *names), (compiler, *loaded) = (line.split() for line in result.stdout.splitlines())
    assert (cuda_started, compiler) == ("False", "False")
    assert sorted(names) == ["FusedAIF", "aif_reference", "fused_aif"]
    assert "torch" in loaded
    assert not {"transformers", "datasets", "accelerate", "tokenizers", "dlfa"} & set(loaded)
