"""Opt-in tuning of tile sizes: bounded in time, by bucket of sizes and never by length, kept on disk."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import torch
from triton import TritonError

from . import environment
from .checks import AIFWeights
from .groups import l2_bytes
from .tile_cache import add_tiles, read_tiles
from .tiles import Tile, Tiles, choose_tiles, device_architecture, power_of_two

logger = logging.getLogger(__name__)

# The stages of every full pass that touch the states, in the order in which they are tuned.
STAGES = ("squeeze", "expand", "reduce", "inputs")
# Parts of L2 for `Tiles.l2_share`, tried after the stages.
L2_SHARES = (0.25, 0.5, 0.75)
TUNING_LENGTH = 128
# What a trial must save, of the time; less is noise.
LEAST_GAIN = 0.01
# The norm of what tiles may change in a result, of the result's own: they round otherwise, no more.
MOST_DIFFERENCE = 0.05

_tuned: dict[str, Tiles] = {}
_tuning = threading.Lock()


def bucket(embed_dim: int, squeeze_dim: int, dtype: torch.dtype, architecture: str) -> str:
    """The key under which tiles are kept: E rounded up to a power of two, H, dtype and architecture.

    H as it is: what a program holds of it decides whether a tile fits in registers and shared memory.
    """
    name = str(dtype).removeprefix("torch.")
    return f"{architecture} {name} E{power_of_two(embed_dim)} H{squeeze_dim}"


def neighbours(tile: Tile) -> Iterator[Tile]:
    """Tiles that differ from `tile` in one thing: blocks of tokens or channels, warps, registers or stages."""
    choices = {
        "block_t": (128, 64, 32),
        "block_e": (128, 64, 32),
        "num_warps": (4, 8),
        "registers": (255, 168, 128),
        "num_stages": (2, 3, 4),
    }
    for name, values in choices.items():
        for value in values:
            if value != getattr(tile, name):
                yield replace(tile, **{name: value})


def tune(default: Tiles, measure: Callable[[Tiles, str], float], seconds: float) -> Tiles:
    """The best tiles found within a time limit, stage by stage: from neighbour to neighbour, as long as one is faster.

    Each stage may take an equal part of the time that those before it have left.

    Args:
        default: where to start; kept where nothing is faster.
        measure: time of a pass, in any unit, with given tiles, as they change in the named stage or in "l2_share";
            raises RuntimeError or TritonError for tiles that cannot run.
        seconds: stop after this long.
    """
    end, best = time.monotonic() + seconds, default
    names = (*STAGES, "l2_share")
    for index, name in enumerate(names):
        now = time.monotonic()
        best = _tune_stage(best, name, measure, now + (end - now) / (len(names) - index))
    return best


def _tune_stage(best: Tiles, name: str, measure: Callable[[Tiles, str], float], deadline: float) -> Tiles:
    start = getattr(best, name)
    if time.monotonic() > deadline:
        return best
    fastest = measure(best, name)
    tried: set[Tile | float] = {start}
    waiting: list[Tile | float] = list(L2_SHARES if name == "l2_share" else neighbours(start))
    while waiting:
        value = waiting.pop(0)
        if value in tried:
            continue
        if time.monotonic() > deadline:
            logger.info("tuning of %s stopped for want of time, %d choices tried", name, len(tried))
            break
        tried.add(value)
        trial = replace(best, **{name: value})  # type: ignore[arg-type]
        try:
            elapsed = measure(trial, name)
        except (RuntimeError, TritonError) as error:  # too much shared memory, or a shape the compiler refuses
            logger.debug("%s %s cannot run: %s", name, value, error)
            continue
        if elapsed < fastest * (1 - LEAST_GAIN):
            best, fastest = trial, elapsed
            if isinstance(value, Tile):
                waiting += neighbours(value)
    return best


def _milliseconds(run: Callable[[], object]) -> float:
    """Time of a call on the current GPU, the median of five."""
    times = []
    for _ in range(5):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        run()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end))
    return sorted(times)[2]


def _alike(results: Iterable[torch.Tensor], expected: Iterable[torch.Tensor]) -> bool:
    """Whether results differ by rounding alone; not where they hold NaN."""
    pairs = [(result.float(), exact.float()) for result, exact in zip(results, expected, strict=True)]
    return all(bool((result - exact).norm() <= MOST_DIFFERENCE * exact.norm()) for result, exact in pairs)


def _measure_on(
    device: torch.device, embed_dim: int, squeeze_dim: int, dtype: torch.dtype
) -> Callable[[Tiles, str], float]:
    """Milliseconds of a forward pass, or of a backward pass for its stages, of both for groups, on made-up states.

    They fill the device and exceed L2: smaller batches have half of the tokens a tile (`call.sized`) and no groups. The
    first call for a stage is with tiles that are known to be right; RuntimeError for such as have other results.
    """
    from . import full_passes
    from .call import multiprocessors, sized
    from .launches import using_tiles

    generator = torch.Generator(device).manual_seed(0)  # not the default one, whose state belongs to the user

    def made(*shape: int) -> torch.Tensor:
        return torch.randn(shape, device=device, dtype=dtype, generator=generator)

    state_bytes = embed_dim * dtype.itemsize
    beyond_l2 = 1 + l2_bytes(device) // (TUNING_LENGTH * state_bytes)
    batch = max(2 * multiprocessors(device), beyond_l2)
    last, lower, dz = (made(batch, TUNING_LENGTH, embed_dim) for _ in range(3))
    e, h = embed_dim, squeeze_dim
    shapes = ((h, e, 1), (h,), (e, h, 1), (e,), (h, e), (h,), (e, h), (e,))
    weights = AIFWeights._make(made(*shape) * 0.02 for shape in shapes)
    arguments = (last, lower, weights, None, None)
    expected: dict[str, list[torch.Tensor]] = {}

    def measure(tiles: Tiles, stage: str) -> float:
        tiles = sized(tiles, batch, batch * TUNING_LENGTH, state_bytes, tiles.l2_share, device)
        with using_tiles(tiles, in_this_thread=True):
            saved = full_passes.forward(*arguments, "gate", "relu")

            def run() -> list[torch.Tensor]:
                results = []
                if stage in ("squeeze", "expand", "l2_share"):
                    results.append(full_passes.forward(*arguments, "gate", "relu").z)
                if stage not in ("squeeze", "expand"):
                    results += full_passes.backward(dz, *arguments, saved, "gate", "relu").tensors
                return results

            results = run()
            if not _alike(results, expected.setdefault(stage, results)):
                raise RuntimeError("the results are not those of the tiles that it started with")
            return _milliseconds(run)

    return measure


def tiles_for(
    embed_dim: int, squeeze_dim: int, dtype: torch.dtype, device: torch.device, products: torch.dtype | None = None
) -> Tiles:
    """The shipped tiles, or with DLFA_AUTOTUNE=1 on a GPU the tuned ones of the bucket, tuned now if there are none.

    Where `products` have another dtype than the states the shipped ones serve. Nothing is tuned while a CUDA graph is
    captured.
    """
    architecture = device_architecture(device)
    default = choose_tiles(embed_dim, squeeze_dim, dtype, architecture, products)
    if device.type != "cuda" or not environment.autotune() or products not in (None, dtype):
        return default
    key = bucket(embed_dim, squeeze_dim, dtype, architecture)
    with _tuning:  # threads that tuned at once would time each other's launches
        if key not in _tuned:
            path = environment.tile_cache()
            found = read_tiles(path).get(key)
            if found is None:
                if torch.cuda.is_current_stream_capturing():
                    logger.warning("no tiles are tuned while a CUDA graph is captured: the shipped ones serve %s", key)
                    return default
                logger.info("tuning tiles of %s for at most %.0f s", key, environment.autotune_seconds())
                try:
                    measure = _measure_on(device, embed_dim, squeeze_dim, dtype)
                    found = tune(default, measure, environment.autotune_seconds())
                    add_tiles(path, key, found)
                except torch.OutOfMemoryError:
                    logger.warning("too little memory to tune tiles: the shipped ones serve %s", key)
                    found = default
            _tuned[key] = found
    return _tuned[key]
