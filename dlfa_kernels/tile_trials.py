"""Trials of tiles on random states: whether they run, whether results are correct, and how long they take."""

from __future__ import annotations

from collections.abc import Callable

import torch

from .device import l2_bytes, multiprocessors
from .overrides import using_tiles
from .parameters import AIFWeights, weight_shapes
from .rounding import cdiv
from .tiles import Tiles, tiles_for_batch, tiles_for_form, with_two_sequences

LENGTH = 128
# The largest accepted relative difference: the norm of the difference over that of the result. Tiles may change only
# rounding. States are compared by sequence and channel: one wrong tile would hardly change the norm of all.
MOST_DIFFERENCE = 0.05


def trial_batch(device: torch.device, state_bytes: int) -> int:
    """Return how many sequences of `LENGTH` tokens of `state_bytes` exceed L2, in full rounds of two-slot programs.

    Smaller batches use half the tokens a tile (`tiles.tiles_for_batch`) and no groups. In incomplete rounds, programs
    of two slots gain nothing, and calls use one slot instead.
    """
    beyond_l2 = 1 + l2_bytes(device) // (LENGTH * state_bytes)
    round_of_two_slots = 2 * multiprocessors(device)
    return cdiv(beyond_l2, round_of_two_slots) * round_of_two_slots


class Trials:
    """Forward and backward passes on states that fill a GPU and exceed its L2 (`trial_batch`).

    Args:
        device: a GPU.
        embed_dim: E.
        squeeze_dim: H.
        dtype: of states and parameters.
        product_dtype: the dtype of products over tokens.

    Raises:
        torch.OutOfMemoryError: three tensors of that size do not fit.
    """

    def __init__(
        self, device: torch.device, embed_dim: int, squeeze_dim: int, dtype: torch.dtype, product_dtype: torch.dtype
    ) -> None:
        self.device, self.dtype, self.product_dtype = device, dtype, product_dtype
        self.embed_dim, self.squeeze_dim = embed_dim, squeeze_dim
        self._generator = torch.Generator(device).manual_seed(0)  # the default generator's state is the user's
        self.batch = trial_batch(device, embed_dim * dtype.itemsize)
        self._states = [self._made(self.batch, LENGTH, embed_dim) for _ in range(3)]
        self._weights = self._made_weights(kernel_size=1)
        self._expected: dict[str, list[torch.Tensor]] = {}

    def _made(self, *shape: int) -> torch.Tensor:
        return torch.randn(shape, device=self.device, dtype=self.dtype, generator=self._generator)

    def _made_weights(self, kernel_size: int) -> AIFWeights:
        shapes = weight_shapes(self.embed_dim, self.squeeze_dim, kernel_size)
        return AIFWeights._make(self._made(*shape) * 0.02 for shape in shapes)

    def measure(self, tiles: Tiles, stage: str) -> float:
        """Return the milliseconds of the pass with this stage, forward or backward, or of both for "l2_share".

        The first call for a stage must use tiles that are known to be correct; later calls compare with its results.

        Raises:
            RuntimeError, TritonError: the tiles cannot run, their results differ, or calls would replace them, so that
                there is nothing to measure.
        """
        from . import passes  # here: it imports this module, to choose tiles
        from .operands import Inputs
        from .settings import Settings

        last, lower, dz = self._states
        inputs = Inputs(last, lower, None, None, None, self._weights)
        settings = Settings("gate", "relu", self.product_dtype)
        state_bytes = self.embed_dim * self.dtype.itemsize
        taken = tiles_for_batch(tiles, self.batch, self.batch * LENGTH, state_bytes, tiles.l2_share, self.device)
        if stage == "squeeze" and stage in self._expected and taken.squeeze.slots != tiles.squeeze.slots:
            raise RuntimeError(f"calls take {taken.squeeze} in its place")
        with using_tiles(taken, in_this_thread=True):
            saved = passes.forward(inputs, settings)

            def run() -> list[torch.Tensor]:
                results = []
                if stage in ("squeeze", "expand", "l2_share"):
                    results.append(passes.forward(inputs, settings).z)
                if stage not in ("squeeze", "expand"):
                    results += passes.backward(inputs._replace(dz=dz), settings, saved).tensors
                return results

            results = run()
            expected = self._expected.setdefault(stage, results)
            if not all(
                _alike(*pair, states=pair[0].shape == last.shape) for pair in zip(results, expected, strict=True)
            ):
                raise RuntimeError("the results are not those of the tiles that it started with")
            return _milliseconds(run)

    def run_forms(self, tiles: Tiles) -> None:
        """Run passes of the forms that need more registers or shared memory than the one that `measure` runs.

        Raises:
            RuntimeError, TritonError: the tiles cannot run in one of these forms.
        """
        from . import passes
        from .operands import Inputs
        from .settings import Settings

        last, lower, dz = (states[:2] for states in self._states)
        x, y, gradient = (states.flatten(0, 1) for states in (last, lower, dz))  # the same, packed
        mask = torch.ones(2, LENGTH, dtype=torch.bool, device=self.device)
        cu_seqlens = torch.tensor([0, LENGTH, 2 * LENGTH], dtype=torch.int32, device=self.device)
        with using_tiles(with_two_sequences(tiles), in_this_thread=True):
            inputs = Inputs(last, lower, None, mask, None, self._weights)
            settings = Settings("select", "gelu", self.product_dtype)
            saved = passes.forward(inputs, settings)
            passes.backward(inputs._replace(dz=dz), settings, saved)
        with using_tiles(tiles_for_form(tiles, kernel_size=3, packed=True), in_this_thread=True):
            inputs = Inputs(x, y, None, None, cu_seqlens, self._made_weights(kernel_size=3))
            settings = Settings("select", "silu", self.product_dtype)
            saved = passes.forward(inputs, settings)
            passes.backward(inputs._replace(dz=gradient), settings, saved)


def _milliseconds(run: Callable[[], object]) -> float:
    """Return the time of a call on the current GPU, the median of five."""
    times = []
    for _ in range(5):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        run()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end))
    return sorted(times)[2]


def _alike(result: torch.Tensor, expected: torch.Tensor, states: bool) -> bool:
    """Return whether results differ by rounding alone; False if they contain NaN. `states` are (B, T, E)."""
    tokens = 1 if states else None
    difference = torch.linalg.vector_norm(result.float() - expected.float(), dim=tokens)
    return bool((difference <= MOST_DIFFERENCE * torch.linalg.vector_norm(expected.float(), dim=tokens)).all())
