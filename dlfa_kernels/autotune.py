"""Opt-in tuning of tile sizes: with a time limit, for a bucket of sizes that excludes lengths, and stored on disk."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
import triton
from triton import TritonError

from . import environment
from .device import device_architecture
from .rounding import padded_side
from .tile_cache import add_tiles, read_tiles
from .tile_trials import Trials
from .tiles import Tile, Tiles, choose_tiles, one_warpgroup

logger = logging.getLogger(__name__)

# The stages of every full pass that access the states, in the order in which they are tuned.
STAGES = ("squeeze", "expand", "reduce", "input_grads")
# Values of `Tiles.l2_share`, tried after the stages.
L2_SHARES = (0.25, 0.5, 0.75)
# The smallest relative gain that counts as faster; less is noise.
LEAST_GAIN = 0.01

_tuned: dict[str, Tiles] = {}
_tuning = threading.Lock()


def bucket(embed_dim: int, squeeze_dim: int, dtype: torch.dtype, architecture: str, product_dtype: torch.dtype) -> str:
    """Return the key of tuned tiles: E rounded up to a power of two, H, dtypes, architecture and Triton's version.

    H and the version are exact, because they decide whether a tile fits in registers and shared memory. `product_dtype`
    is in the key only if it differs from the dtype of the states.
    """
    name = str(dtype).removeprefix("torch.")
    if product_dtype != dtype:
        name += f" by {str(product_dtype).removeprefix('torch.')}"
    return f"{architecture} {name} E{padded_side(embed_dim)} H{squeeze_dim} triton {triton.__version__}"


def neighbours(tile: Tile, stage: str) -> Iterator[Tile]:
    """Yield tiles of a stage with one change each: of a block, warps, registers, stages, slots, `early` or `ahead`.

    Halving both the warpgroups and the tokens counts as one change.
    """
    choices = {
        "block_t": (128, 64, 32),
        "block_e": (128, 64, 32),
        "num_warps": (4, 8),
        "registers": (255, 168, 128),
        "num_stages": (2, 3, 4),
        "slots": (1, 2) if stage == "squeeze" else (1,),
        "early": (0, 1) if stage == "input_grads" else (0,),
        "ahead": (0, 1) if stage == "input_grads" else (0,),
    }
    if torch.version.hip:  # `registers` is not passed to its compiler: the tile would be the same
        del choices["registers"]
    for name, values in choices.items():
        for value in values:
            if value != getattr(tile, name):
                yield replace(tile, **{name: value})
    if tile.block_t > 64 and tile.num_warps > 4:
        yield one_warpgroup(tile)


def tune(default: Tiles, measure: Callable[[Tiles, str], float], seconds: float) -> Tiles:
    """Return the best tiles found within a time limit, by local search over neighbours, stage by stage.

    The time that is left is divided equally among the stages that remain.

    Args:
        default: the tiles to start from, kept where nothing is faster.
        measure: (tiles, name) -> time of a pass in any unit; the tiles differ in the named stage or in "l2_share".
            Raises RuntimeError or TritonError for tiles that cannot run.
        seconds: the time limit.
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
    try:
        fastest = measure(best, name)
    except torch.OutOfMemoryError:  # concerns all stages, and says nothing about these tiles
        raise
    except (RuntimeError, TritonError) as error:
        logger.warning("%s is not tuned, as %s cannot be measured: %s", name, start, error)
        return best
    tried: set[Tile | float] = {start}
    waiting: list[Tile | float] = list(L2_SHARES if name == "l2_share" else neighbours(start, name))
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
                waiting += neighbours(value, name)
    return best


def _fit_for_every_form(tuned: Tiles, default: Tiles, trials: Trials) -> Tiles:
    """Return `tuned`, or with one stage's defaults, or `default`: the first that runs in all forms of a call.

    The search itself tries only one form.
    """
    for stage in (None, *STAGES):
        tiles = tuned if stage is None else replace(tuned, **{stage: getattr(default, stage)})
        try:
            trials.run_forms(tiles)
        except (RuntimeError, TritonError) as error:
            logger.debug("tuned tiles, %s as shipped, cannot run: %s", stage, error)
            continue
        return tiles
    return default


def tuning_waits(device: torch.device) -> bool:
    """Return whether tuning on `device` is postponed because a CUDA graph is being captured."""
    return device.type == "cuda" and environment.autotune() and torch.cuda.is_current_stream_capturing()


def tiles_for(
    embed_dim: int, squeeze_dim: int, dtype: torch.dtype, device: torch.device, product_dtype: torch.dtype
) -> Tiles:
    """Return the shipped tiles or, with DLFA_AUTOTUNE=1 on a GPU, the bucket's tuned tiles, tuned now if missing.

    Nothing is tuned while a CUDA graph is captured.
    """
    architecture = device_architecture(device)
    default = choose_tiles(embed_dim, squeeze_dim, dtype, architecture, product_dtype)
    if device.type != "cuda" or not environment.autotune():
        return default
    key = bucket(embed_dim, squeeze_dim, dtype, architecture, product_dtype)
    with _tuning:  # threads that tune at the same time would time each other's launches
        if key not in _tuned:
            path = environment.tile_cache()
            found = read_tiles(path).get(key)
            if found is None:
                if tuning_waits(device):
                    logger.warning("no tiles are tuned while a CUDA graph is captured: the shipped ones serve %s", key)
                    return default
                logger.info("tuning tiles of %s for at most %.0f s", key, environment.autotune_seconds())
                try:
                    trials = Trials(device, embed_dim, squeeze_dim, dtype, product_dtype)
                    found = tune(default, trials.measure, environment.autotune_seconds())
                    found = _fit_for_every_form(found, default, trials)
                    add_tiles(path, key, found)
                except torch.OutOfMemoryError:
                    logger.warning("too little memory to tune tiles: the shipped ones serve %s", key)
                    found = default
            _tuned[key] = found
    return _tuned[key]
