"""Tuned tile sizes on disk: a JSON file that may be truncated, foreign or written by two processes at once."""

from __future__ import annotations

import json
import os
import warnings
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any
from uuid import uuid4

from .tiles import MAX_BLOCK_T, MAX_HELD_H, MAX_PART_H, Tile, Tiles

FORMAT = "dlfa-tiles-8"
BEGINNING = '{"format":"dlfa-tiles-'  # of a tile cache of any version, without white space
# The lowest and highest values that tuning can find: anything else has another origin, and might not compile.
LIMITS = {
    "block_t": (16, MAX_BLOCK_T), "block_e": (16, 128), "block_h": (16, MAX_HELD_H), "chunks": (1, 16),
    "num_warps": (4, 8), "num_stages": (1, 4), "registers": (64, 255), "slots": (1, 2),
    "early": (0, 1), "ahead": (0, 1), "sequences": (1, 1),
}  # fmt: skip


def _tile(value: Any) -> Tile:
    names = {field.name for field in fields(Tile)}
    if not isinstance(value, dict) or set(value) != names:
        raise ValueError(f"a tile must have {sorted(names)}, got {value!r}")
    for name, (lowest, highest) in LIMITS.items():
        if type(value[name]) is not int or not lowest <= value[name] <= highest:
            raise ValueError(f"{name} must be an integer from {lowest} to {highest}, got {value[name]!r}")
    blocks = (value["block_t"], value["block_e"], value["block_h"], value["num_warps"])
    if any(number & (number - 1) for number in blocks):
        raise ValueError(f"blocks and warps must be powers of two, got {value!r}")
    tile = Tile(**value)
    if tile.held_h > MAX_PART_H:
        raise ValueError(f"chunks of block_h may hold {MAX_PART_H} channels, got {tile.chunks} of {tile.block_h}")
    return tile


def _tiles(value: Any) -> Tiles:
    names = {field.name for field in fields(Tiles)}
    if not isinstance(value, dict) or set(value) != names:
        raise ValueError(f"tiles must have {sorted(names)}, got {value!r}")
    share = value["l2_share"]
    if not (type(share) in (int, float) and 0 <= share <= 1):
        raise ValueError(f"l2_share must be a number from 0 to 1, got {share!r}")
    return Tiles(**{name: _tile(value[name]) for name in Tiles.stages()}, l2_share=float(share))


def read_tiles(path: Path) -> dict[str, Tiles]:
    """Return tiles by bucket; none without a file and, with a warning, none from a foreign or truncated file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise ValueError(f'"format" must be {FORMAT!r}')
        return {bucket: _tiles(value) for bucket, value in content["tiles"].items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, AttributeError, RecursionError) as error:
        warnings.warn(f"the file of tuned tile sizes {path} is ignored: {error}", stacklevel=2)
        return {}


def _is_foreign(path: Path) -> bool:
    """Return whether `path` is a file that is neither a tile cache nor a truncated one."""
    try:
        start = "".join(path.read_bytes()[:100].decode(errors="replace").split())[: len(BEGINNING)]
    except OSError:
        return False
    return not BEGINNING.startswith(start)


def add_tiles(path: Path, bucket: str, tiles: Tiles) -> None:
    """Add one bucket to those in the file, by writing a temporary file and renaming it.

    If two processes write at once, the file is still complete; at worst one of the two buckets is missing and is tuned
    again. A file that cannot be written gives a warning, not an error; so do another program's file and a path that is
    no regular file (such as /dev/null), which are left unchanged.
    """
    path = Path(os.path.realpath(path))  # keeps a link as a link
    if path.exists() and not path.is_file():
        warnings.warn(f"tuned tile sizes could not be kept in {path}: it is no regular file", stacklevel=2)
        return
    if _is_foreign(path):
        warnings.warn(f"tuned tile sizes could not be kept in {path}: it is another program's file", stacklevel=2)
        return
    merged = {**read_tiles(path), bucket: tiles}
    content = {"format": FORMAT, "tiles": {name: asdict(value) for name, value in sorted(merged.items())}}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}-{uuid4().hex}")
        try:
            temporary.write_text(json.dumps(content, indent=1), encoding="utf-8")
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        warnings.warn(f"tuned tile sizes could not be kept in {path}: {error}", stacklevel=2)
