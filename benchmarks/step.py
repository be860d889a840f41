"""Wall clock of a training step of a BERT-base-sized encoder with a plain head, eager AIF or fused AIF.

    python -m benchmarks.step [--device cuda|cpu] [--out DIR] [--budget-seconds S] [--provider NAME ...]

Random weights from a `BertConfig`, tagging 32 sequences of 128 tokens: forward, loss, backward and AdamW under bfloat16
autocast with float32 parameters. All tokens are real, and the encoder gets no mask: transformers would wait for the GPU
in every forward to look whether it is needed. AIF fuses the last layer with the middle one. The models take turns of a
few steps, so that clock drift affects all equally. A row is the wall clock of a step, with percentiles over turns. AIF
is checked against float64 on the encoder's own states.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import BertConfig, BertModel  # imported here, before the session starts the suite's time

from dlfa_kernels import FusedAIF

from . import providers
from .cases import CPU_SHAPES, SMALL_SHAPE, Case, core_case
from .plain_aif import PlainAIF
from .plots import Bars, size
from .problems import Problem, decide_relu, exact
from .results import case_keys
from .suite import Session, Suite, check, main, round_error
from .timing import summarise, synchronise

LABELS = 17
WARM_UP_STEPS, STEPS_A_TURN, LEAST_TURNS, MOST_TURNS = 5, 5, 7, 40
CPU_TURNS = 2
# Reserved for the work after the steps.
RESERVE_SECONDS = 3.0


class Tagger(nn.Module):
    """An encoder, AIF of its last and middle layer or none, and a linear head.

    Args:
        shape: (B, T, E) of the batch; E is the encoder's width.
        provider: "plain-head", "eager", or a name of `FusedAIF`.
    """

    def __init__(self, shape: tuple[int, int, int], provider: str) -> None:
        super().__init__()
        _, length, width = shape
        if shape == SMALL_SHAPE:
            config = BertConfig()  # BERT-base
        else:
            config = BertConfig(
                vocab_size=100, hidden_size=width, num_hidden_layers=2, num_attention_heads=2,
                intermediate_size=2 * width, max_position_embeddings=length,
            )  # fmt: skip
        self.encoder = BertModel(config, add_pooling_layer=False)
        self.fusion_layer = config.num_hidden_layers // 2
        self.aif: FusedAIF | None = None
        self.fusion: nn.Module | None = None
        if provider != providers.PLAIN_HEAD:
            backend = "triton" if provider == providers.OURS else "eager"
            self.aif = FusedAIF(width, backend=backend)
            self.fusion = PlainAIF(self.aif) if provider == providers.EAGER else self.aif
        self.head = nn.Linear(width, LABELS)

    def states(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Return the states of the last and the middle layer, (B, T, E) each."""
        outputs = self.encoder(input_ids=tokens, output_hidden_states=True)
        return outputs.last_hidden_state, outputs.hidden_states[self.fusion_layer]

    def forward(self, tokens: Tensor, mask: Tensor, labels: Tensor) -> Tensor:
        """Return the cross-entropy of the labels (B, T) for `tokens` (B, T)."""
        if self.fusion is None:
            states = self.encoder(input_ids=tokens).last_hidden_state
        else:
            states = self.fusion(*self.states(tokens), mask)
        return F.cross_entropy(self.head(states).flatten(0, 1).float(), labels.flatten())


def training_step(model: Tagger, optimizer: torch.optim.Optimizer, batch: tuple[Tensor, ...]) -> Callable[[], None]:
    """Return a training step on `batch`: tokens, mask and labels, (B, T) int64; it does not wait for the device."""

    def step() -> None:
        with torch.autocast(batch[0].device.type, torch.bfloat16):
            loss = model(*batch)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def fusion_errors(model: Tagger, case: Case, batch: tuple[Tensor, ...]) -> dict[str, float]:
    """Return the relative errors of the model's AIF, run as in the step, on the encoder's states after `decide_relu`.

    Args:
        model: a model with AIF.
        case: the case of the batch.
        batch: tokens, mask and labels, (B, T) int64 each.
    """
    tokens, mask, _ = batch
    aif, fusion = model.aif, model.fusion
    assert aif is not None
    assert fusion is not None
    with torch.no_grad(), torch.autocast(tokens.device.type, torch.bfloat16):
        last, lower = model.states(tokens)
    last, lower = (states.detach().clone().requires_grad_() for states in (last, lower))
    decide_relu(aif, last, lower)
    problem = Problem(case, aif, last, lower, torch.randn_like(last), mask, None)

    def call() -> Tensor:
        with torch.autocast(tokens.device.type, torch.bfloat16):
            z: Tensor = fusion(last, lower, mask)
        return z.to(last.dtype)

    return check(call, problem, exact(problem), ("both",))["both"]


def run(session: Session) -> None:
    """Build the models, check their AIF, and time them in turns."""
    device = session.device
    shape = SMALL_SHAPE if device.type == "cuda" else CPU_SHAPES[1]
    case = core_case(shape)
    names = session.wanted((providers.PLAIN_HEAD, providers.ours(device), providers.EAGER))
    keys = {name: case_keys(session.suite, "step", case, name) for name in names}
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(100, shape[:2], generator=generator).to(device)
    labels = torch.randint(LABELS, shape[:2], generator=generator).to(device)
    batch = (tokens, torch.ones_like(tokens), labels)

    steps: dict[str, Callable[[], None]] = {}
    errors: dict[str, float | None] = {}
    for name in names:
        with session.attempt(name, [keys[name]]) as go:
            if not go:
                continue
            torch.manual_seed(0)
            with device:  # weights are drawn fast there; a CPU takes seconds for each model
                model = Tagger(shape, name).train()
            errors[name] = None
            if name != providers.PLAIN_HEAD:
                found = fusion_errors(model, case, batch)
                if not session.right(keys[name], found):
                    continue
                errors[name] = round_error(max(found.values()))
            optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=device.type == "cuda")
            step = training_step(model, optimizer, batch)
            for _ in range(WARM_UP_STEPS):
                step()
            synchronise(device)
            steps[name] = step
    laps = take_turns(session, steps)
    for name, microseconds in laps.items():
        timing = {key: round(value, 3) for key, value in summarise(microseconds)._asdict().items()}
        session.results.add(keys[name], max_rel_error=errors[name], **timing)


def take_turns(session: Session, steps: dict[str, Callable[[], None]]) -> dict[str, list[float]]:
    """Return the microseconds a step of each model, by turn, until the budget ends or there are enough."""
    laps: dict[str, list[float]] = {name: [] for name in steps}
    cuda = session.device.type == "cuda"
    least, most = (LEAST_TURNS, MOST_TURNS) if cuda else (CPU_TURNS, CPU_TURNS)
    gc.collect()
    for turn in range(most):
        if turn >= least and session.budget.remaining < RESERVE_SECONDS:
            break
        for name, step in steps.items():
            synchronise(session.device)
            start = time.perf_counter()
            for _ in range(STEPS_A_TURN):
                step()
            synchronise(session.device)
            laps[name].append(1e6 * (time.perf_counter() - start) / STEPS_A_TURN)
    return laps


def _milliseconds(row: dict[str, Any]) -> float | None:
    return None if row["median_us"] is None else float(row["median_us"] / 1000)


SUITE = Suite(
    "step",
    "A training step of BERT-base",
    run,
    Bars(_milliseconds, size, "milliseconds a training step"),
    60,
    (providers.PLAIN_HEAD, providers.EAGER, providers.OURS, providers.OURS_EAGER),
)

if __name__ == "__main__":
    main(SUITE)
