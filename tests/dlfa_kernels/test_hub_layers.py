"""The package as Hugging Face's `kernels` loads it: its layers, the layout, loading from a folder."""

from __future__ import annotations

import importlib.util
import inspect
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.utils.prune
from torch import nn

import dlfa_kernels
from dlfa_kernels import hub_layout

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PACKAGE = Path(dlfa_kernels.__file__).parent
needs_kernels = pytest.mark.skipif(importlib.util.find_spec("kernels") is None, reason="needs the extra `hub`")


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hub") / "dlfa-kernels"
    hub_layout.write_hub_layout(folder)
    return folder


def python(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(HERE)])}
    return subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True, timeout=300)


def test_the_layer_is_a_forward_and_two_flags() -> None:
    layer = dlfa_kernels.layers.FusedAIF
    own = {name for name, _ in inspect.getmembers(layer)} - {name for name, _ in inspect.getmembers(nn.Module)}
    assert own == {"has_backward", "can_torch_compile"}
    assert layer.has_backward
    assert layer.can_torch_compile
    assert layer.__init__ is nn.Module.__init__
    assert inspect.signature(layer.forward) == inspect.signature(dlfa_kernels.FusedAIF.forward)


def test_the_layer_refuses_an_activation_module_by_name() -> None:
    model = dlfa_kernels.FusedAIF(16)
    model.activation = nn.ReLU()
    with pytest.raises(ValueError, match=r"activation must be one of 'relu', .*, got ReLU\(\)"):
        dlfa_kernels.layers.FusedAIF.forward(model, torch.ones(1, 2, 16))


def test_the_layer_refuses_what_stands_in_place_of_a_layer() -> None:
    forward = dlfa_kernels.layers.FusedAIF.forward
    wrapped, pruned = dlfa_kernels.FusedAIF(16), dlfa_kernels.FusedAIF(16)
    wrapped.global_expand = nn.Sequential(wrapped.global_expand)
    with pytest.raises(TypeError, match=r"global_expand must be torch\.nn's own layer, whose parameters are read, got"):
        forward(wrapped, torch.ones(1, 2, 16))
    nn.utils.prune.l1_unstructured(pruned.local_squeeze, "weight", 0.5)
    with pytest.raises(TypeError, match=r"local_squeeze\.weight must be a parameter"):
        forward(pruned, torch.ones(1, 2, 16))


def test_the_layout_holds_the_package_for_every_backend(layout: Path) -> None:
    modules = {path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py")} - {"hub_layout.py"}
    ids = set()
    assert {path.name for path in layout.iterdir()} == {"build", "build.toml", "torch-ext"}
    assert {path.name for path in (layout / "build").iterdir()} == {"torch-cpu", "torch-cuda", "torch-rocm"}
    for folder in [layout / "torch-ext" / "dlfa_kernels", *(layout / "build").iterdir()]:
        files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
        assert files - {"metadata.json"} == modules
        assert all((folder / name).read_bytes() == (PACKAGE / name).read_bytes() for name in modules)
        if folder.parent.name == "build":
            metadata = json.loads((folder / "metadata.json").read_text())
            assert f"torch-{metadata['backend']['type']}" == folder.name
            assert metadata["id"].isidentifier()
            ids.add(metadata["id"])
    assert len(ids) == 3


def test_the_id_follows_the_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(PACKAGE, tmp_path / "copy", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(hub_layout, "_SOURCES", tmp_path / "copy")
    (tmp_path / "copy" / "hub_layout.py").unlink()
    before = hub_layout.kernel_id("cuda")
    with (tmp_path / "copy" / "kernels" / "pool.py").open("a") as file:
        file.write("# more\n")
    assert hub_layout.kernel_id("cuda") != before


def test_a_folder_in_use_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("mine")
    result = python("-m", "dlfa_kernels.hub_layout", tmp_path)
    assert result.returncode == 2
    assert result.stderr == f"Error: {tmp_path}: exists already; a new or an empty folder is needed\n"
    assert [path.name for path in tmp_path.iterdir()] == ["notes"]


def test_a_missing_parent_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no such folder .*nowhere"):
        hub_layout.write_hub_layout(tmp_path / "nowhere" / "kernel")


def test_a_failure_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> str:
        raise OSError("disk full")

    monkeypatch.setattr(hub_layout, "kernel_id", full)
    with pytest.raises(OSError, match="disk full"):
        hub_layout.write_hub_layout(tmp_path / "kernel")
    assert not list(tmp_path.iterdir())


@needs_kernels
def test_build_toml_is_what_kernel_builder_reads(layout: Path) -> None:
    from kernels._rust import Build, Metadata

    backends = {str(backend) for backend in Build.open(layout).general.backends}
    assert backends == {"cpu", "cuda", "rocm"}
    for variant in (layout / "build").iterdir():
        metadata = Metadata.read_from_file(variant / "metadata.json")
        assert str(metadata.name) == "dlfa-kernels"
        assert (layout / "torch-ext" / metadata.name.python_name / "__init__.py").is_file()


@pytest.mark.skipif(bool(os.environ.get("DLFA_TEST_PTX")), reason="no other process runs what is compiled for a GPU")
@pytest.mark.parametrize("loader", ["import", pytest.param("kernels", marks=needs_kernels)])
def test_a_copy_and_the_package_work_in_one_process(loader: str, layout: Path, device: torch.device) -> None:
    result = python(HERE / "load_hub_layout.py", layout, loader, device.type)
    assert result.returncode == 0, result.stderr
    name, *namespaces = result.stdout.split()
    assert namespaces == ["dlfa", name]
