"""`dlfa train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ..models.fusion_names import FUSIONS, WITHOUT_LAYER
from ..terminal import fail, is_first_process, quiet_libraries
from .options import Quiet, check_used, output_path, run_fields, with_run_options
from .saved_runs import show_results


@with_run_options
def train(
    output_dir: Annotated[Path, output_path("Folder for model, results and predictions.")],
    options: dict[str, Any],
    fusion_layer: Annotated[
        str | None,
        typer.Option(help="Lower layer to fuse, 0 (embeddings) to L-1; several as 6,4; none: last-layer baseline."),
    ] = None,
    fusion: Annotated[str | None, typer.Option(help="Fusion; default: aif.", metavar=f"<{'|'.join(FUSIONS)}>")] = None,
    fuse: Annotated[
        str | None, typer.Option(help="AIF: how the gate is applied; default: gate.", metavar="<gate|select>")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of initialisation, data order and dropout.")] = 1,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run in --output-dir.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in --output-dir.")] = False,
    quiet: Quiet = False,
) -> None:
    """Train on English, test on every language.

    Writes the model, results.json and predictions to --output-dir.
    """
    fields = run_fields(**options)
    given = {"fusion": fusion, "fuse": fuse}
    layer = _fusion_layer(fusion_layer, fusion)
    fields["model_options"] |= {"fusion_layer": layer}
    fields["model_options"] |= {name: value for name, value in given.items() if value is not None}
    if fusion == "last" and layer is not None:
        raise ValueError(f"--fusion-layer must be none for --fusion last, got {fusion_layer}")
    check_used(fields, [fusion or ("last" if layer is None else "aif")])
    from ..runs.run_config import RunConfig

    config = RunConfig(output_dir=output_dir, seed=seed, **fields)
    quiet_libraries()
    from ..runs.run_directory import RunDirectory
    from ..training.train import train as train_run

    complete = resume and RunDirectory(output_dir).results_file.exists()
    try:
        results = train_run(config, overwrite=overwrite, resume=resume, progress=not quiet)
    except KeyboardInterrupt:
        again = f"the same command with --resume goes on with the run in {output_dir}"
        fail(f"interrupted; {again}", status=130)
    if complete and is_first_process():
        typer.echo(f"the run in {output_dir} is complete")
    show_results(results)


def _fusion_layer(text: str | None, fusion: str | None) -> int | list[int] | None:
    """Parse --fusion-layer into None, one layer or several."""
    if text is None:
        if fusion in WITHOUT_LAYER:
            return None
        raise ValueError("--fusion-layer must be given: 0 to L-1 for an encoder of L layers, or none for the baseline")
    if text.lower() == "none":
        return None
    try:
        layers = [int(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"--fusion-layer must be an integer, several as 4,6, or none, got {text!r}") from None
    return layers[0] if len(layers) == 1 else layers
