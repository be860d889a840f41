"""Statistics of gates by language and channel and of each layer's contribution to the output, batch by batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .layer_contributions import FusionParts

CLOSED, OPEN = 0.1, 0.9  # a gate below or above counts as nearly closed or nearly open
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_BINS = 1000  # histogram bins for the quantiles, which are thus accurate to 0.001


class GateStatistics:
    """Statistics of the gate of one fusion step over the tokens of one language."""

    def __init__(self) -> None:
        self.histogram = np.zeros(_BINS)
        self.closed = self.open = 0.0
        self.squares = 0.0
        self.sentence_sums: list[NDArray[np.float64]] = []  # (E,) each
        self.sentence_tokens: list[int] = []

    def add(self, gate: Tensor, used: Tensor) -> None:
        """Add a batch: the gate (B, T, E), and the mask (B, T) of tokens to include."""
        values = gate[used]
        self.histogram += torch.histc(values, _BINS, 0.0, 1.0).cpu().numpy()
        self.closed += float((values < CLOSED).sum())
        self.open += float((values > OPEN).sum())
        self.squares += float(values.double().square().sum())
        sums = (gate * used[..., None]).double().sum(1).cpu().numpy()
        for row, tokens in zip(sums, used.sum(1).tolist(), strict=True):
            if tokens:
                self.sentence_sums.append(row)
                self.sentence_tokens.append(tokens)

    @property
    def tokens(self) -> int:
        """Return the number of tokens added so far."""
        return sum(self.sentence_tokens)

    @property
    def channel_means(self) -> NDArray[np.float64]:
        """Return the mean of each channel, (E,)."""
        return np.sum(self.sentence_sums, axis=0) / self.tokens

    def summary(self) -> dict[str, Any]:
        """Return mean, spread and quantiles over tokens and channels, and shares of nearly closed and open gates.

        There are also shares of nearly closed and open channels, judged by their means over the tokens.
        """
        means = self.channel_means
        count = self.tokens * len(means)
        mean = float(means.mean())
        return {
            "tokens": self.tokens,
            "mean": mean,
            "deviation": max(0.0, self.squares / count - mean**2) ** 0.5,
            "quantiles": {str(q): value for q, value in zip(QUANTILES, self._quantiles(), strict=True)},
            "closed": self.closed / count,
            "open": self.open / count,
            "channels_closed": float((means < CLOSED).mean()),
            "channels_open": float((means > OPEN).mean()),
            "channel_deviation": float(means.std()),
            "channels": [round(float(value), 4) for value in means],
        }

    def _quantiles(self) -> list[float]:
        edges = np.linspace(0, 1, _BINS + 1)
        cumulated = np.concatenate([[0], np.cumsum(self.histogram)]) / self.histogram.sum()
        return [float(value) for value in np.interp(QUANTILES, cumulated, edges)]


def variance_shares(statistics: Mapping[str, GateStatistics]) -> dict[str, float]:
    """Return shares of the gate's variance over all tokens and channels; they sum to 1.

    They follow the law of total variance. "channel" is the variance of the channels' means. "language" and "sentence"
    are, per channel, the variances of the language means and of the sentence means within a language. "token" is the
    remainder within sentences. All tokens have the same weight.
    """
    tokens = sum(item.tokens for item in statistics.values())
    means = {name: item.channel_means for name, item in statistics.items()}
    overall = np.sum([item.tokens * means[name] for name, item in statistics.items()], axis=0) / tokens
    channel = float(overall.var())
    language = sum(item.tokens * float(((means[name] - overall) ** 2).mean()) for name, item in statistics.items())
    sentence = sum(
        count * float(((sums / count - means[name]) ** 2).mean())
        for name, item in statistics.items()
        for sums, count in zip(item.sentence_sums, item.sentence_tokens, strict=True)
    )
    squares = sum(item.squares for item in statistics.values()) / (tokens * len(overall))
    total = max(squares - float(overall.mean()) ** 2, 1e-12)
    shares = {"channel": channel / total, "language": language / tokens / total, "sentence": sentence / tokens / total}
    return {**shares, "token": max(0.0, 1 - sum(shares.values()))}


class Contributions:
    """Each layer's contribution to the fusion's output over the tokens of one language."""

    def __init__(self) -> None:
        self.weights: dict[str, float] = {}
        self.shares: dict[str, float] = {}
        self.tokens = 0

    def add(self, parts: FusionParts, used: Tensor) -> None:
        """Add a batch; `used` (B, T) masks the tokens to include."""
        norms = {name: part[used].norm(dim=-1) for name, part in parts.parts().items()}
        total = torch.stack(list(norms.values())).sum(0).clamp(min=1e-12)
        count = int(used.sum())
        for name, norm in norms.items():
            coefficient = parts.coefficients[name]
            weight = coefficient[used].mean() if coefficient.dim() == 3 else coefficient.mean()
            self.weights[name] = self.weights.get(name, 0.0) + count * float(weight)
            self.shares[name] = self.shares.get(name, 0.0) + float((norm / total).sum())
        self.tokens += count

    def summary(self) -> dict[str, dict[str, float]]:
        """Return by layer: "weight", its mean coefficient (m and 1 - m in select mode), and "norm_share", the mean over
        tokens of its part's Euclidean norm divided by the sum of all parts' norms."""
        return {
            name: {"weight": self.weights[name] / self.tokens, "norm_share": self.shares[name] / self.tokens}
            for name in self.weights
        }


class FusionWatcher:
    """Collects gates and contributions of one language; pass it to `language_states`."""

    def __init__(self) -> None:
        self.gates: list[GateStatistics] = []
        self.contributions = Contributions()

    def __call__(self, parts: FusionParts, used: Tensor) -> None:
        while len(self.gates) < len(parts.gates):
            self.gates.append(GateStatistics())
        for statistics, gate in zip(self.gates, parts.gates, strict=True):
            statistics.add(gate, used)
        self.contributions.add(parts, used)


def gate_summary(name: str, fuse: str, by_language: Mapping[str, GateStatistics]) -> dict[str, Any]:
    """Return all statistics of the gate of the step that fuses layer `name`."""
    return {
        "layer": name,
        "fuse": fuse,
        "languages": {language: statistics.summary() for language, statistics in by_language.items()},
        "variance": variance_shares(by_language),
    }
