"""Lay the package out for Hugging Face's `kernels`: `python -m dlfa_kernels.hub_layout FOLDER`.

FOLDER/build.toml                the configuration of kernel-builder
FOLDER/torch-ext/dlfa_kernels/   the sources where kernel-builder expects them
FOLDER/build/torch-<backend>/    the sources and metadata.json, which the loader reads; there is nothing to compile
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

BACKENDS = ("cpu", "cuda", "rocm")
KERNEL_NAME = "dlfa-kernels"
KERNEL_VERSION = 1  # increased when `layers` or `fused_aif` change for callers; each has a branch on the Hub
LICENSE = "Apache-2.0"

_SOURCES = Path(__file__).resolve().parent
_BUILD_TOML = f"""\
[general]
name = "{KERNEL_NAME}"
version = {KERNEL_VERSION}
edition = 5
license = "{LICENSE}"
backends = [{", ".join(f'"{backend}"' for backend in BACKENDS)}]

[torch-noarch]
"""


def _source_files() -> list[Path]:
    """Return the package's modules as sorted relative paths, without this one, which the loader does not use."""
    paths = (path.relative_to(_SOURCES) for path in _SOURCES.rglob("*.py") if path != Path(__file__).resolve())
    return sorted(paths, key=Path.as_posix)


def _copy_sources(target: Path) -> None:
    for path in _source_files():
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(_SOURCES / path, target / path)


def _digest() -> str:
    digest = hashlib.sha256()
    for path in _source_files():
        contents = (_SOURCES / path).read_bytes()
        digest.update(f"{path.as_posix()} {len(contents)}\n".encode() + contents)
    return digest.hexdigest()[:12]


def kernel_id(backend: str) -> str:
    """Return the module name under which the loader imports a variant: unique to the sources and the backend."""
    return f"_{KERNEL_NAME.replace('-', '_')}_{backend}_{_digest()}"


def write_hub_layout(folder: Path) -> None:
    """Write the layout to `folder`, all of it or nothing.

    Args:
        folder: does not exist yet, or is empty.

    Raises:
        FileExistsError: `folder` is a file, or a folder that is not empty.
        FileNotFoundError: its parent does not exist.
    """
    if not folder.parent.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder {folder.parent}")
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise FileExistsError(f"{folder}: exists already; a new or an empty folder is needed")
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as temporary:
        layout = Path(temporary) / "layout"
        _copy_sources(layout / "torch-ext" / KERNEL_NAME.replace("-", "_"))
        (layout / "build.toml").write_text(_BUILD_TOML)
        for backend in BACKENDS:
            variant = layout / "build" / f"torch-{backend}"
            _copy_sources(variant)
            metadata = {
                "id": kernel_id(backend),
                "name": KERNEL_NAME,
                "version": KERNEL_VERSION,
                "license": LICENSE,
                "python-depends": [],
                "backend": {"type": backend},
            }
            (variant / "metadata.json").write_text(json.dumps(metadata, indent=2) + "\n")
        os.replace(layout, folder)


def main() -> None:
    """Run the command line.

    Raises:
        SystemExit: with status 2, after one line on standard error, if the folder cannot be written.
    """
    description = "Lay the package out for Hugging Face's kernels."
    parser = argparse.ArgumentParser(prog="python -m dlfa_kernels.hub_layout", description=description)
    parser.add_argument("folder", type=Path, help="a new or an empty folder")
    folder = parser.parse_args().folder
    try:
        write_hub_layout(folder)
    except OSError as error:
        print(f"Error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    print(folder)


if __name__ == "__main__":
    main()
