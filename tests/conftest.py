"""What all tests share: where they run, what they may not reach, and the data beside the checkout."""

import os
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]

# The folders of tests bear the packages' names without being packages: the checkout must stand on the path as well.
sys.path.insert(0, str(ROOT))

# No test may look for a model or data set online, nor may the processes that tests start.
os.environ["HF_HUB_OFFLINE"] = "1"

# Such as "sm_90": run what the kernels compile to for it, by benchmarks/ptx_machine, and not the interpreter.
PTX_ARCHITECTURE = os.environ.get("DLFA_TEST_PTX") or None

# Triton reads this when kernels are defined, so it is set before anything imports triton; torch alone does not.
if PTX_ARCHITECTURE is not None:
    os.environ["TRITON_INTERPRET"] = "0"
elif not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

ON_GPU = torch.cuda.is_available() and os.environ.get("TRITON_INTERPRET", "0") != "1" and PTX_ARCHITECTURE is None

# Several workers with several threads each are slower than one thread a worker.
if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)


def pytest_report_header() -> str:
    """Say what runs the kernels: their numbers depend on it."""
    try:
        import triton
    except ImportError:
        return "kernels: not run, triton cannot be imported"
    how = torch.cuda.get_device_name() if ON_GPU else "Triton's interpreter"
    if PTX_ARCHITECTURE is not None:
        how = f"compiled for {PTX_ARCHITECTURE}, executed by benchmarks.ptx_machine"
    return f"kernels: {how}, triton {triton.__version__}, torch {torch.__version__}, numpy {version('numpy')}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what is marked `gpu` where kernels do not run on one."""
    if ON_GPU:
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="needs a GPU"))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say how near the kernels came to float64: the worst of what tests recorded as `kernel_error`."""
    worst: dict[tuple[str, str], list[float]] = {}
    relu: dict[str, float] = {}
    for report in terminalreporter.getreports("passed") + terminalreporter.getreports("failed"):
        for name, value in report.user_properties:
            if report.when == "call" and name == "kernel_error":
                dtype, activations, forward, gradient = value
                cases, *errors = worst.get((dtype, activations), [0, 0.0, 0.0])
                worst[dtype, activations] = [cases + 1, max(errors[0], forward), max(errors[1], gradient)]
            if report.when == "call" and name == "relu_error":
                relu[value[0]] = max(relu.get(value[0], 0.0), value[1])
    if worst:
        terminalreporter.section("kernels: worst relative error to the definition in float64")
    for (dtype, activations), (cases, forward, gradient) in sorted(worst.items()):
        terminalreporter.line(
            f"{dtype:9} {activations:11} {cases:4.0f} cases   z {forward:.1e}   any gradient {gradient:.1e}"
        )
    for dtype, ratio in sorted(relu.items()):
        terminalreporter.line(f"{dtype:9} relu        median error {ratio:.2f} of eager code's in the same dtype")


@pytest.fixture(scope="session")
def device() -> torch.device:
    """Where kernels are tested: the GPU, or the CPU under Triton's interpreter."""
    return torch.device("cuda" if ON_GPU else "cpu")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real models and treebanks beside the checkout."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip(f"needs the data folder {folder.name}/ beside the checkout")
    return folder


@pytest.fixture(scope="session", autouse=PTX_ARCHITECTURE is not None)
def compiled_launches() -> Iterator[None]:
    """Compile every launch on CPU tensors for PTX_ARCHITECTURE, and run that."""
    from benchmarks.cpu_as_gpu import cpu_as_gpu
    from benchmarks.ptx_machine import launching
    from dlfa_kernels import launches, replays

    assert PTX_ARCHITECTURE is not None
    stream = SimpleNamespace(active=SimpleNamespace(get_current_stream=lambda index: None))
    with cpu_as_gpu(PTX_ARCHITECTURE), pytest.MonkeyPatch.context() as patch:
        patch.setattr(launches, "_compile", lambda launches: None)
        patch.setattr(launches.Launch, "run", lambda launch, key: launching.run(launch, PTX_ARCHITECTURE))
        patch.setattr(replays, "driver", stream)
        yield


@pytest.fixture
def deterministic() -> Iterator[None]:
    """Have torch's own operators add up in a fixed order, on a GPU too."""
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(before[0], warn_only=before[1])


@pytest.fixture
def poisoned_memory(deterministic: None) -> None:
    """Fill new tensors, torch.empty and its kin, with NaN or the largest integer: unwritten elements fail a test."""
    assert torch.utils.deterministic.fill_uninitialized_memory
    assert torch.empty(2).isnan().all()
