"""`dlfa sweep`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ..models.fusion_names import FUSIONS, WITHOUT_LAYER
from ..terminal import fail, print_table, quiet_libraries
from .options import Quiet, check_used, output_path, run_fields, split_list, with_run_options


@with_run_options
def sweep(
    output_dir: Annotated[Path, output_path("Folder for the sweep: cells/NAME/ for each run, and sweep.json.")],
    options: dict[str, Any],
    fusion_layers: Annotated[
        str, typer.Option(help="Lower layers, one run each: 4,6,8; 6+4 fuses both in one run; all: each layer alone.")
    ] = "all",
    seeds: Annotated[str, typer.Option(help="Seeds, such as 1,2,3.")] = "1",
    modes: Annotated[
        str,
        typer.Option(
            help=f"Fusions: {', '.join(each for each in FUSIONS if each != 'aif')}, aif:gate, aif:select; "
            f"{' and '.join(WITHOUT_LAYER)} do not depend on the layer and run once per seed."
        ),
    ] = "last,aif:gate",
    keep_models: Annotated[bool, typer.Option("--keep-models", help="Save the model of every run.")] = False,
    processes: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Runs at a time; default: one per GPU; on a CPU one, with a frozen encoder one for every 8 runs.",
        ),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Train one run per mode, layer and seed.

    The same command again continues an interrupted sweep.
    """
    fields = run_fields(**options)
    layers = None if fusion_layers == "all" else _layers(fusion_layers)
    numbers, names = _integers("seeds", seeds), split_list("modes", modes)
    check_used(fields, (name.partition(":")[0] for name in names))
    if layers is not None and {*names} <= {*WITHOUT_LAYER}:
        raise ValueError(f"--fusion-layers is for modes of lower layers, got {', '.join(names)}")
    quiet_libraries()
    from ..evaluation.tables import sweep_table
    from ..runs.run_config import RunConfig
    from ..sweep.cells import ProcessEndedError
    from ..sweep.config import SweepConfig
    from ..sweep.run import run_sweep

    base = RunConfig(output_dir=output_dir, **fields)
    config = SweepConfig(base, output_dir, layers, numbers, names)
    try:
        result = run_sweep(config, keep_models=keep_models, processes=processes, progress=not quiet)
    except KeyboardInterrupt:
        fail("interrupted; the same command goes on with the sweep", status=130)
    except ProcessEndedError as error:
        fail(f"{error}; the same command goes on with the sweep", status=1)
    print_table(sweep_table(result))
    failed = [cell["name"] for cell in result["cells"] if cell["state"] == "failed"]
    if failed:
        fail(f"{len(failed)} of {len(result['cells'])} runs failed: {', '.join(failed)}; see their error.txt", status=1)


def _integers(option: str, text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in split_list(option, text))
    except ValueError:
        raise ValueError(f"--{option} must be integers, several as 1,2, got {text!r}") from None


def _layers(text: str) -> tuple[int | tuple[int, ...], ...]:
    """Return the entries of --fusion-layers; each is one layer, or several joined by +."""
    layers: list[int | tuple[int, ...]] = []
    for entry in split_list("fusion-layers", text):
        try:
            several = tuple(map(int, entry.split("+")))
        except ValueError:
            raise ValueError(f"--fusion-layers must be all, or layers such as 4,6,6+4, got {text!r}") from None
        layers.append(several if len(several) > 1 else several[0])
    return tuple(layers)
