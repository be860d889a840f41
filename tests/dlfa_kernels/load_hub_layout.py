"""Run by test_hub_layers.py in a process of its own: load the layout in FOLDER beside the installed package, use both.

    python load_hub_layout.py FOLDER {import,kernels} DEVICE

"import" does by hand what the loader of `kernels` does; "kernels" takes the loader itself, and `kernelize`.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from pathlib import Path
from types import ModuleType

import torch
from aif_cases import GRADIENTS, Case, exact, make_inputs, relative_errors, run
from torch import Tensor, nn

import dlfa_kernels
from dlfa_kernels.parameters import AIFWeights

LIMIT = 2e-5  # of float32, as in test_kernels.py
CASES = [
    Case(batch=2, length=5, embed_dim=16, kernel_size=3, fuse="select"),
    Case(lengths=(3, 0, 4), embed_dim=16, token=1),
]


class Replaceable(nn.Module):
    """A model's own AIF, which must not run once it has been replaced."""

    def __init__(self, case: Case, weights: AIFWeights) -> None:
        super().__init__()
        e, h, k = case.embed_dim, case.squeeze_dim, case.kernel_size
        self.local_squeeze, self.local_expand = nn.Conv1d(e, h, k), nn.Conv1d(h, e, 1)
        self.global_squeeze, self.global_expand = nn.Linear(e, h), nn.Linear(h, e)
        self.fuse, self.activation = case.fuse, case.activation
        for parameter, weight in zip(self.parameters(), weights, strict=True):
            parameter.data = weight

    def forward(
        self,
        last: Tensor,
        lower: Tensor | None = None,
        mask: Tensor | None = None,
        *,
        cu_seqlens: Tensor | None = None,
        token: int | None = None,
    ) -> Tensor:
        raise AssertionError("the model's own forward ran")


def load(folder: Path, loader: str) -> ModuleType:
    """The kernel's module."""
    if loader == "kernels":
        from kernels import get_local_kernel

        return get_local_kernel(folder)
    variant = folder / "build" / "torch-cpu"
    name = json.loads((variant / "metadata.json").read_text())["id"]
    spec = importlib.util.spec_from_file_location(name, variant / "__init__.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def check(copy: ModuleType, case: Case, device: str) -> None:
    """The copy, and the package beside it, give the definition's result and gradients."""
    inputs = make_inputs(case, device)
    for module in (copy, dlfa_kernels):
        errors = relative_errors(run(module.fused_aif, inputs, **case.options), exact(inputs, case))
        assert max(errors.values()) < LIMIT, (module, case, errors)


def check_kernelize(folder: Path, case: Case, device: str) -> None:
    """`kernelize` takes the layer in every mode without falling back, and gives the definition's result."""
    from kernels import LocalLayerRepository, Mode, kernelize, use_kernel_forward_from_hub, use_kernel_mapping

    inputs = make_inputs(case, device)
    assert inputs.lower is not None
    states = [tensor.detach().requires_grad_() for tensor in (inputs.last, inputs.lower)]
    repository = LocalLayerRepository(folder, layer_name="FusedAIF")
    decorated = use_kernel_forward_from_hub("FusedAIF")(Replaceable)
    for mode in (Mode.INFERENCE, Mode.TRAINING, Mode.TRAINING | Mode.TORCH_COMPILE):
        model = decorated(case, inputs.weights)
        with use_kernel_mapping({"FusedAIF": {device: repository}}, inherit_mapping=False):
            model = kernelize(model, mode=mode, device=device, use_fallback=False)
        call = torch.compile(model, backend="aot_eager", fullgraph=True) if Mode.TORCH_COMPILE in mode else model
        z = call(*states, inputs.mask, cu_seqlens=inputs.cu_seqlens, token=case.token)
        dz = inputs.dz if case.token is None else inputs.dz_token
        gradients = torch.autograd.grad(z, [*states, *model.parameters()], dz)
        results = {"z": z.detach(), **dict(zip(GRADIENTS, gradients, strict=True))}
        errors = relative_errors(results, exact(inputs, case))
        assert max(errors.values()) < LIMIT, (mode, case, errors)


def main() -> None:
    folder, loader, device = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    copy = load(folder, loader)
    assert Path(str(copy.__file__)).is_relative_to(folder)
    assert copy.FusedAIF is not dlfa_kernels.FusedAIF
    for backend in ("eager", "triton"):
        os.environ["DLFA_BACKEND"] = backend
        for case in CASES:
            check(copy, case, device)
        if loader == "kernels":
            check_kernelize(folder, CASES[0], device)
    print(copy.__name__, *(name for name in ("dlfa", copy.__name__) if hasattr(getattr(torch.ops, name), "aif")))


if __name__ == "__main__":
    main()
