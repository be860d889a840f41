"""Options of the commands that compile or launch kernels without a GPU, and the checks of their values."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from dlfa_kernels.backends import INTERPRETED

from .cases import DTYPES

# The architectures that `benchmarks.ptx_machine` executes.
ARCHITECTURES = ("sm_80", "sm_90")


def one_of(option: str, values: list[str], choices: Iterable[str]) -> None:
    """Reject values of an option that are not among its choices.

    Raises:
        typer.BadParameter: one is not.
    """
    choices = list(choices)
    for value in values:
        if value not in choices:
            raise typer.BadParameter(f"must be one of {', '.join(choices)}, got {value!r}", param_hint=option)


def refuse_interpreter() -> None:
    """Stop if Triton's interpreter is on, which replaces the compiler.

    Raises:
        typer.BadParameter: it does.
    """
    if INTERPRETED:
        raise typer.BadParameter(
            "must be unset where kernels are compiled: it replaces the compiler", param_hint="TRITON_INTERPRET"
        )


def _executed(arch: str) -> str:
    one_of("--arch", [arch], ARCHITECTURES)
    return arch


def _known(dtype: str) -> str:
    one_of("--dtype", [dtype], DTYPES)
    return dtype


RowsPath = Annotated[Path, typer.Option("--json", help="File to write the rows to.")]
Architecture = Annotated[str, typer.Option("--arch", callback=_executed, help=f"One of {', '.join(ARCHITECTURES)}.")]
Dtype = Annotated[str, typer.Option("--dtype", callback=_known, help=f"One of {', '.join(DTYPES)}.")]
EmbedDim = Annotated[int, typer.Option("--embed-dim", min=8, help="E.")]
Reduction = Annotated[int, typer.Option("--reduction", min=1, help="E / H.")]
