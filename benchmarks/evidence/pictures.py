"""Shrink pictures so that they can be stored with the source."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image

from dlfa.files import atomic

MOST_BYTES = 120_000
_COLOURS = (256, 64, 32, 16)


def shrink(path: Path) -> None:
    """Rewrite a PNG with a palette of fewer colours until it is smaller than `MOST_BYTES`.

    Raises:
        ValueError: it remains too large.
    """
    if path.stat().st_size < MOST_BYTES:
        return
    with Image.open(path) as image:
        picture = image.convert("RGB")
    for colours in _COLOURS:
        content = io.BytesIO()
        picture.quantize(colours, dither=Image.Dither.NONE).save(content, format="PNG", optimize=True)
        if content.tell() < MOST_BYTES:
            atomic.write_bytes(path, content.getvalue())
            return
    raise ValueError(f"{path} has {path.stat().st_size:,} bytes and does not get below {MOST_BYTES:,}; show less in it")
