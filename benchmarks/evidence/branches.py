"""Which of AIF's branches helps, and over which layers: the control `residual` with parts left out, on frozen encoders.

    python -m benchmarks.evidence.branches --model ENCODER --data ROOT --output-dir DIR
    python -m benchmarks.evidence --write

The first writes branches.csv beside runs.csv, the second RESULTS.md with its table. Finished runs in DIR are kept. The
altered modules exist only here: they answer a question, and no task needs them.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated
from unittest import mock

import torch
import typer
from rich.progress import track
from torch import Tensor, nn

from dlfa.files.json_files import read_object
from dlfa.models import fusion
from dlfa.models.residual import ResidualBranches
from dlfa.report.tables import Table
from dlfa.runs.run_config import RunConfig
from dlfa.runs.run_directory import RunDirectory
from dlfa.terminal import fail, one_line_errors, quiet_libraries
from dlfa.training.recorded_runs import failure_reason, run_recorded
from dlfa_kernels import FusedAIF

from ..hardware import ROOT
from .groups import Group, Layers, Places, PlannedRun, variant
from .plan import NER_FROZEN, NLI_FROZEN, NLI_FROZEN_MEAN, PAIR, POS_FROZEN
from .rows import Row, read_csv, write_csv
from .shared_inputs import SharedInputsCache

FILE = ROOT / "benchmarks/results/evidence/branches.csv"
SEEDS = (1, 2)
COLUMNS = ("altered", "group", "seed", "metric", "dev", "average_zero_shot", "torch", "commit")
_GROUPS = {
    "NLI, first token": NLI_FROZEN, "NLI, mean of tokens": NLI_FROZEN_MEAN, "NER, F1": NER_FROZEN,
    "POS, accuracy": POS_FROZEN,
}  # fmt: skip


class GlobalBranchAlone(ResidualBranches):
    """z = w + g: the local branch stays at the zero that it starts from."""

    def __init__(self, *args: int, **options: object) -> None:
        super().__init__(*args, **options)  # type: ignore[arg-type]
        self.local_expand.requires_grad_(False)


class LocalBranchAlone(ResidualBranches):
    """z = w + l."""

    def __init__(self, *args: int, **options: object) -> None:
        super().__init__(*args, **options)  # type: ignore[arg-type]
        self.global_expand.requires_grad_(False)


class StartingAsAIF(ResidualBranches):
    """z = w + g + l, with expand layers that start as AIF's, not at zero."""

    def _start_at_the_sum(self) -> None:
        pass


class OverTheLastLayer(ResidualBranches):
    """z = x + g + l, with w = x in both branches."""

    def forward(
        self, last: Tensor, lower: Tensor | None = None, mask: Tensor | None = None, *, token: int | None = None
    ) -> Tensor:
        """Fuse nothing: ignore `lower`."""
        return super().forward(last, None, mask, token=token)


class OverTheLowerLayer(ResidualBranches):
    """z = y + g + l, with w = y in both branches."""

    def forward(
        self, last: Tensor, lower: Tensor | None = None, mask: Tensor | None = None, *, token: int | None = None
    ) -> Tensor:
        """Fuse nothing: ignore `last`."""
        assert lower is not None
        return super().forward(lower, None, mask, token=token)


class ConstantGateAtFirst(FusedAIF):
    """AIF whose expand weights start at zero, as the control's do."""

    def __init__(self, *args: int, **options: object) -> None:
        super().__init__(*args, **options)  # type: ignore[arg-type]
        for expand in (self.local_expand, self.global_expand):
            nn.init.zeros_(expand.weight)


@dataclass(frozen=True)
class Altered:
    """A row of the table: a module in place of the control's or AIF's own, with the mode and layers of its runs."""

    title: str
    module: type[ResidualBranches] | type[FusedAIF]
    layers: Layers = PAIR
    mode: str = "residual"

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Build models with this module meanwhile."""
        name = "FusedAIF" if issubclass(self.module, FusedAIF) else "ResidualBranches"
        with mock.patch.object(fusion, name, self.module):
            yield


ALTERED = {
    "both": Altered("both, over the last layer, 6 and 4: as it is", ResidualBranches),
    "global": Altered("the global one alone: a hidden layer over the mean of all tokens", GlobalBranchAlone),
    "local": Altered("the local one alone: a hidden layer over each token", LocalBranchAlone),
    "start": Altered("both, starting as AIF's do and not at the sum", StartingAsAIF),
    "gate": Altered("AIF gate that starts with a constant gate", ConstantGateAtFirst, mode="aif gate"),
    "last": Altered("both, over the last layer alone", OverTheLastLayer, 6),
    "lower-4": Altered("both, over layer 4 alone", OverTheLowerLayer, 4),
    "lower-6": Altered("both, over layer 6 alone", OverTheLowerLayer, 6),
    "last-6": Altered("both, over the last layer and 6", ResidualBranches, 6),
}


def planned(places: Places) -> list[tuple[str, Group, RunConfig]]:
    """Return the name of the altered module, the group and the configuration of each run, group by group."""
    runs = []
    for group in _GROUPS.values():
        for seed in SEEDS:
            for name, altered in ALTERED.items():
                run = PlannedRun(group, variant(altered.mode, altered.layers), altered.layers, seed)
                path = places.output_dir / group.name / name / f"seed{seed}"
                runs.append((name, group, dataclasses.replace(run.config(places), output_dir=path)))
    return runs


def make_rows(places: Places) -> list[Row]:
    """Make the missing runs, and return the rows of all.

    Raises:
        RuntimeError: a run failed; the message has its directory and the reason.
    """
    runs, rows = planned(places), []
    shared = SharedInputsCache([config for *_, config in runs])
    for name, group, config in track(runs, "runs"):
        with ALTERED[name].in_place():
            if not run_recorded(config, lambda config=config: shared.of(config), keep_model=False):  # type: ignore[misc]
                raise RuntimeError(f"the run in {config.output_dir} failed: {failure_reason(config.output_dir)}")
        results = read_object(RunDirectory(config.output_dir).results_file, ("averages", "environment", "train"))
        metric, environment = group.metric or results["metric"], results["environment"]
        values = (
            name, group.name, config.seed, metric, results["train"]["best_dev"],
            results["averages"][metric]["zero_shot"], environment["torch"], environment["commit"],
        )  # fmt: skip
        rows.append(dict(zip(COLUMNS, map(str, values), strict=True)))
    return rows


def branches_table(path: Path) -> Table | None:
    """Return one row an altered module, one column a task: the zero-shot mean over the seeds, in percent."""
    rows = read_csv(path, COLUMNS)
    if not rows:
        return None
    table = []
    for name, altered in ALTERED.items():
        cells = [altered.title]
        for group in _GROUPS.values():
            found = [
                float(row["average_zero_shot"]) for row in rows if (row["altered"], row["group"]) == (name, group.name)
            ]
            cells.append(f"{100 * statistics.fmean(found):.1f}" if found else "-")
        table.append(tuple(cells))
    return Table(("branches", *_GROUPS), tuple(table))


def main(
    model: Annotated[str, typer.Option(help="Encoder: Hub id or directory.")],
    data: Annotated[Path, typer.Option(help="A folder that holds a folder a task.")],
    output_dir: Annotated[Path, typer.Option(help="Of the runs.")] = Path("runs/branches"),
    states_cache: Annotated[Path | None, typer.Option(help="Of the encoder's hidden states.")] = None,
    threads: Annotated[int, typer.Option(min=1, help="Torch's, on the CPU.")] = 1,
) -> None:
    """Make the runs with altered branches and write branches.csv."""
    quiet_libraries()
    torch.set_num_threads(threads)
    with one_line_errors():
        if not data.is_dir():
            raise ValueError(f"--data: {data} is no directory")
        places = Places(model, data, output_dir, states_cache)
        try:
            rows = make_rows(places)
        except RuntimeError as error:
            fail(str(error), status=1)
        write_csv(FILE, COLUMNS, rows)
    typer.echo(f"written: {FILE}")


if __name__ == "__main__":
    typer.run(main)
