"""AIF's control without a gate: against its formula, and against AIF in everything that the two have in common."""

import pytest
import torch
from tiny_encoders import batch, tiny_encoder
from torch import Tensor
from torch.nn import functional as F

from dlfa import DLFAForSequenceClassification, DLFAForTokenClassification
from dlfa.models.residual import ResidualBranches
from dlfa_kernels import FusedAIF

MASK = torch.tensor([[1, 1, 1, 1, 1, 1], [0, 1, 1, 0, 1, 0], [0, 0, 0, 0, 0, 0]])
PHI = {"relu": F.relu, "gelu": F.gelu, "silu": F.silu}


def made(dtype: torch.dtype = torch.float64, **options: object) -> ResidualBranches:
    """A module whose expand layers have left zero."""
    torch.manual_seed(0)
    module = ResidualBranches(24, dtype=dtype, **options)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return module


def states(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    last, lower = (torch.randn(3, 6, 24, generator=generator, dtype=dtype) for _ in range(2))
    return last, lower


def formula(module: ResidualBranches, last: Tensor, lower: Tensor | None, mask: Tensor) -> Tensor:
    """w + g + l with torch's own layers, sentence by sentence."""
    phi = PHI[module.activation]
    real = mask[..., None] != 0
    w = torch.where(real, last if lower is None else last + lower, 0)
    rows = []
    for states, here in zip(w, real, strict=True):
        pooled = states.sum(0) / here.sum().clamp(min=1)
        g = module.global_expand(phi(module.global_squeeze(pooled)))
        squeezed = F.conv1d(
            states.T, module.local_squeeze.weight, module.local_squeeze.bias, padding=module.kernel_size // 2
        )
        local = F.conv1d(phi(squeezed), module.local_expand.weight, module.local_expand.bias).T
        rows.append(torch.where(here, states + g + local, 0))
    return torch.stack(rows)


@pytest.mark.parametrize("activation", PHI)
@pytest.mark.parametrize("kernel_size", [1, 3])
def test_it_is_the_formula_and_so_are_its_gradients(activation: str, kernel_size: int) -> None:
    module = made(activation=activation, kernel_size=kernel_size, squeeze_dim=20)
    last, lower = (each.requires_grad_() for each in states())
    inputs = (last, lower, *module.parameters())
    weight = torch.randn(last.shape, generator=torch.Generator().manual_seed(2), dtype=last.dtype)
    found, expected = module(last, lower, MASK), formula(module, last, lower, MASK)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    for ours, theirs in zip(
        torch.autograd.grad((found * weight).sum(), inputs),
        torch.autograd.grad((expected * weight).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
    for token in (0, 4):
        torch.testing.assert_close(module(last, lower, MASK, token=token), expected[:, token])


def test_without_a_lower_layer_or_a_mask() -> None:
    module, (last, _) = made(), states()
    torch.testing.assert_close(module(last), formula(module, last, None, torch.ones(3, 6)))


def test_it_starts_at_the_sum_and_learns_from_there() -> None:
    torch.manual_seed(0)
    module, (last, lower) = ResidualBranches(24), states(torch.float32)
    real = MASK.bool()
    optimiser = torch.optim.SGD(module.parameters(), lr=0.1)
    for step in range(2):
        fused = module(last, lower, MASK)
        assert torch.equal(fused[real], (last + lower)[real]) == (step == 0)
        optimiser.zero_grad()
        fused.square().mean().backward()
        squeezed = {name: bool(value.grad.any()) for name, value in module.named_parameters() if "squeeze" in name}
        assert all(value.grad.any() for name, value in module.named_parameters() if "expand" in name)
        assert set(squeezed.values()) == {step == 1}  # the squeeze layers learn once the expand layers have moved
        optimiser.step()
    module.reset_parameters()
    assert torch.equal(module(last, lower, MASK)[real], (last + lower)[real])


@pytest.mark.parametrize("options", [{}, {"reduction": 2}, {"squeeze_dim": 20, "kernel_size": 5}])
def test_parameters_are_those_of_aif(options: dict) -> None:
    torch.manual_seed(0)
    control = ResidualBranches(64, **options).state_dict()
    torch.manual_seed(0)
    aif = FusedAIF(64, **options).state_dict()
    assert {name: value.shape for name, value in control.items()} == {name: value.shape for name, value in aif.items()}
    for name, value in control.items():
        assert torch.equal(value, torch.zeros_like(value) if "expand" in name else aif[name]), name


@pytest.mark.parametrize("head", [DLFAForSequenceClassification, DLFAForTokenClassification])
def test_a_model_has_as_many_parameters_as_with_aif(head: type) -> None:
    counts = {}
    for fusion in ("residual", "aif"):
        model = head.from_encoder(tiny_encoder("bert"), [2, 0], 5, fusion=fusion, kernel_size=3)
        counts[fusion] = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    assert counts["residual"] == counts["aif"]


def test_a_new_model_starts_at_the_sum() -> None:
    torch.manual_seed(0)
    model = DLFAForTokenClassification.from_encoder(tiny_encoder("bert"), [2, 0], 5, fusion="residual").eval()
    assert model.fusion.aif[1].local_squeeze.weight.any()
    with torch.no_grad():
        kept = model.encoder_states(**batch())
        fused = model.fusion(kept.last, kept.lowers, batch()["attention_mask"])
    real = batch()["attention_mask"].bool()
    torch.testing.assert_close(fused[real], sum(kept.lowers, kept.last)[real])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_and_autocast_accumulate_in_float32(dtype: torch.dtype) -> None:
    module = made(torch.float32)
    last, lower = states(torch.float32)
    last, lower = last.to(dtype), lower.to(dtype)
    expected = formula(module, last.float(), lower.float(), MASK).to(dtype)
    found = module(last, lower, MASK)
    assert found.dtype == dtype
    torch.testing.assert_close(found, expected)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(module(last, lower, MASK), found)


def test_padding_is_never_read() -> None:
    module, (last, lower) = made(kernel_size=3), states()
    clean = module(last, lower, MASK)
    last[MASK == 0], lower[MASK == 0] = torch.nan, torch.inf
    assert torch.equal(module(last, lower, MASK), clean)
    assert (clean[MASK == 0] == 0).all()


def test_what_does_not_fit_is_named() -> None:
    module, (last, lower) = made(), states()
    with pytest.raises(ValueError, match="lower must have the shape of last"):
        module(last, lower[:1])
    with pytest.raises(TypeError, match="mask must be bool or integer"):
        module(last, lower, MASK.double())
    with pytest.raises(ValueError, match="token must be less than T = 6, got 6"):
        module(last, lower, token=6)
    with pytest.raises(ValueError, match="kernel_size must be odd"):
        ResidualBranches(24, kernel_size=2)
