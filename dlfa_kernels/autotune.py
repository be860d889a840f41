"""Opt-in tuning of tile sizes: bounded in time, by bucket of sizes and never by length, kept on disk."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from triton import TritonError

from . import environment
from .device import device_architecture
from .rounding import padded_side
from .tile_cache import add_tiles, read_tiles
from .tile_trials import Trials
from .tiles import Tile, Tiles, choose_tiles, one_warpgroup

logger = logging.getLogger(__name__)

# The stages of every full pass that touch the states, in the order in which they are tuned.
STAGES = ("squeeze", "expand", "reduce", "input_grads")
# Parts of L2 for `Tiles.l2_share`, tried after the stages.
L2_SHARES = (0.25, 0.5, 0.75)
# The smallest relative gain that counts; less is noise.
LEAST_GAIN = 0.01

_tuned: dict[str, Tiles] = {}
_tuning = threading.Lock()


def bucket(embed_dim: int, squeeze_dim: int, dtype: torch.dtype, architecture: str, product_dtype: torch.dtype) -> str:
    """The key under which tiles are kept: E rounded up to a power of two, H, dtypes and architecture.

    H as it is: what a program holds of it decides whether a tile fits in registers and shared memory. `product_dtype`
    is named where it is not the states' own.
    """
    name = str(dtype).removeprefix("torch.")
    if product_dtype != dtype:
        name += f" by {str(product_dtype).removeprefix('torch.')}"
    return f"{architecture} {name} E{padded_side(embed_dim)} H{squeeze_dim}"


def neighbours(tile: Tile, stage: str) -> Iterator[Tile]:
    """Tiles of a stage, each with one thing changed: a block, warps, registers, stages, slots, `early` or `ahead`.

    Half a program of two warpgroups, of half the tokens, counts as one thing.
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
    if torch.version.hip:  # whose compiler is not told of registers: the same tile again
        del choices["registers"]
    for name, values in choices.items():
        for value in values:
            if value != getattr(tile, name):
                yield replace(tile, **{name: value})
    if tile.block_t > 64 and tile.num_warps > 4:
        yield one_warpgroup(tile)


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
    try:
        fastest = measure(best, name)
    except torch.OutOfMemoryError:  # said of all stages, and no reason to keep these tiles
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
    """`tuned`, but the defaults where a stage's tiles fail in some form of a call: the search tries one form alone."""
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
    """Whether calls on `device` may have the shipped tiles for now, and tuned ones later: a CUDA graph is captured."""
    return device.type == "cuda" and environment.autotune() and torch.cuda.is_current_stream_capturing()


def tiles_for(
    embed_dim: int, squeeze_dim: int, dtype: torch.dtype, device: torch.device, product_dtype: torch.dtype
) -> Tiles:
    """The shipped tiles, or with DLFA_AUTOTUNE=1 on a GPU the tuned ones of the bucket, tuned now if there are none.

    Nothing is tuned while a CUDA graph is captured.
    """
    architecture = device_architecture(device)
    default = choose_tiles(embed_dim, squeeze_dim, dtype, architecture, product_dtype)
    if device.type != "cuda" or not environment.autotune():
        return default
    key = bucket(embed_dim, squeeze_dim, dtype, architecture, product_dtype)
    with _tuning:  # threads that tuned at once would time each other's launches
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
