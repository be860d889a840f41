"""The files of a run in its output directory, and the checks before a run may start there.

A run's directory holds run.json (configuration, hashes of data and encoder, names of the model and prediction files),
results.json (written last), the model with its tokenizer, predictions/, languages.png and, during training,
checkpoints/. An ensemble's directory holds ensemble.json (its runs and the names of its predictions), results.json
(written last), predictions/ and languages.png.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from ..files import atomic
from ..files.json_files import read_object
from .checkpoints import checkpoints_in, remove_checkpoint
from .run_config import RunConfig, differences

SWEEP = "sweep.json"  # marks the directory of a sweep

# Names under which a run or ensemble may write: no file of others is to lie there before.
_RESULTS = ("results.json", "languages.png", "predictions/test-*", "predictions/dev-*")
_MODEL = (
    "README.md", "modeling_dlfa.py", "config.json", "model.safetensors", "model-?????-of-?????.safetensors",
    "model.safetensors.index.json", "training.json", "special_tokens_map.json", "added_tokens.json", "tokenizer.json",
    "tokenizer_config.json", "chat_template.jinja", "vocab.txt", "vocab.json", "merges.txt", "*.model", "run.json",
)  # fmt: skip
# What every run and ensemble leaves, and every run beside; run.json or ensemble.json tells what else there is of it.
# The results are removed first, so that nothing half cleared counts as complete, and run.json last, so that it still
# tells of a run.
_ENSEMBLE_FILES = ("results.json", "languages.png")
_RUN_FILES = ("training.json", "run.json")
_PARTIAL = re.compile(
    atomic.TEMPORARY
    + r"(model|(run|ensemble|results|training|sweep)\.json|languages\.png|README\.md|error\.txt|(test|dev)-.+)"
)


@dataclass(frozen=True)
class RunDirectory:
    """The output directory of one run, or of an ensemble of runs."""

    path: Path

    @property
    def run_file(self) -> Path:
        """run.json: everything needed to repeat the run."""
        return self.path / "run.json"

    @property
    def results_file(self) -> Path:
        """results.json: exists only once the run is complete."""
        return self.path / "results.json"

    @property
    def ensemble_file(self) -> Path:
        """ensemble.json: the runs of an ensemble; written before its other files."""
        return self.path / "ensemble.json"

    @property
    def predictions(self) -> Path:
        """The folder of predictions, one file per language, in the format of XTREME's scorer."""
        return self.path / "predictions"

    @property
    def chart_file(self) -> Path:
        """The bar chart over languages."""
        return self.path / "languages.png"

    @property
    def checkpoints(self) -> Path:
        """The folder of the Trainer's checkpoints; exists only until the run is complete."""
        return self.path / "checkpoints"

    @property
    def intermediate(self) -> Path:
        """The directory of the run on the intermediate task that this run started from, if any."""
        return self.path / "intermediate"

    def holds_run(self) -> bool:
        """Return whether the directory holds a run or a model."""
        names = ("run.json", "results.json", "config.json", "model.safetensors")
        return any((self.path / name).exists() for name in names)

    def holds_ensemble(self) -> bool:
        """Return whether the directory holds an ensemble, complete or interrupted."""
        return self.ensemble_file.exists() and {"runs", "by"} <= read_object(self.ensemble_file).keys()

    def wrote(self, name: str) -> bool:
        """Return whether the run or ensemble in this directory writes files called `name`."""
        there = self.run_file.exists() or self.ensemble_file.exists()
        return there and any(fnmatch(name, pattern) for pattern in (*_RESULTS, *_MODEL, self.ensemble_file.name))

    def check_no_others(self, patterns: Sequence[str], who: str) -> None:
        """Raise ValueError if the directory holds a file that `who` would replace; for directories without a run."""
        for pattern in patterns:
            if found := sorted(self.path.glob(pattern)):
                name = found[0].relative_to(self.path)
                raise ValueError(
                    f"--output-dir {self.path} holds {name} of something else, which {who} would replace; give another "
                    "directory"
                )

    def check_there(self) -> None:
        """Raise ValueError unless the path is a directory; for directories to read from."""
        if not self.path.is_dir():
            raise ValueError(f"model directory {self.path} {'is a file' if self.path.exists() else 'does not exist'}")

    def check_is_no_file(self) -> None:
        """Raise ValueError if the path is a file."""
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"--output-dir {self.path} is a file, not a directory")

    def check_folders(self, *folders: Path) -> None:
        """Raise ValueError if a file lies where one of `folders`, which are in this directory, is to be."""
        for folder in folders:
            if os.path.lexists(folder) and not folder.is_dir():
                name = folder.relative_to(self.path)
                raise ValueError(f"--output-dir {self.path} needs {name} to be a folder, and it is a file there")

    def check_no_sweep(self) -> None:
        """Raise ValueError if the directory holds a sweep."""
        if (self.path / SWEEP).exists():
            raise ValueError(f"--output-dir {self.path} holds a sweep ({SWEEP}); give another directory")

    def check(self, model: str, overwrite: bool, resume: bool) -> None:
        """Raise ValueError if a new run must not be written here."""
        if overwrite and resume:
            raise ValueError("--overwrite and --resume cannot be given together")
        self.check_is_no_file()
        self.check_folders(self.predictions, self.checkpoints)
        if Path(model).is_dir() and Path(model).resolve() == self.path.resolve():
            raise ValueError(f"--output-dir must not be the directory of --model, {model}")
        if self.holds_ensemble() and not self.run_file.exists():
            raise ValueError(f"--output-dir {self.path} holds an ensemble; give another directory")
        if self.holds_run() and not (overwrite or resume):
            raise ValueError(
                f"--output-dir {self.path} already holds a run or a model; give --resume to go on with it, "
                "--overwrite to replace it, or another directory"
            )
        if not self.holds_run():
            self.check_no_sweep()
            self.check_no_others((*_RESULTS, *_MODEL, "checkpoints/checkpoint-*"), "the run")
        if self.holds_run() and not self.run_file.exists():
            option, aim = ("--resume", "go on with") if resume else ("--overwrite", "replace")
            raise ValueError(f"{option}: {self.path} holds a model or results but no run.json: no run to {aim}")

    def check_same_run(self, now: dict[str, Any]) -> None:
        """Raise ValueError unless `now`, the new content of `run_file`, describes the run in this directory."""
        before = self.read_run()
        changed = differences(before["config"], now["config"])
        if changed:
            shown = "; ".join(
                f"{name}: {before['config'].get(name)!r} there, {now['config'].get(name)!r} now" for name in changed
            )
            raise ValueError(f"--resume: the run in {self.path} has another configuration ({shown})")
        if (processes := before.get("processes")) != now["processes"]:  # `batch_size` is that of one process
            raise ValueError(
                f"--resume: the run in {self.path} was started by {processes} processes, not {now['processes']}"
            )
        if before["data_sha256"] != now["data_sha256"]:
            raise ValueError(f"--resume: the data have changed since the run in {self.path} was started")

    def check_same_encoder(self, sha256: str) -> None:
        """Raise ValueError unless the run in this directory started from encoder weights with this fingerprint."""
        if self.read_run().get("encoder_sha256") != sha256:
            raise ValueError(f"--resume: the encoder's weights have changed since the run in {self.path} was started")

    def read_run(self) -> dict[str, Any]:
        """Read the content of `run_file`.

        Raises:
            ValueError: the file is not a valid run.json.
        """
        run = read_object(self.run_file, ("config", "data_sha256"))
        if not isinstance(run["config"], dict):
            raise ValueError(f"{self.run_file}: config must be an object, got {run['config']!r}")
        return run

    def read_config(self) -> RunConfig:
        """Read the configuration in `run_file`.

        Raises:
            ValueError: the file is not a valid run.json; the message names it.
        """
        try:
            return RunConfig.from_json(self.read_run()["config"], self.path)
        except (ValueError, TypeError) as error:
            message = str(error)
            raise ValueError(message if str(self.run_file) in message else f"{self.run_file}: {message}") from error

    def record(self, names: Iterable[str]) -> None:
        """Record in `run_file` the files, relative to this directory, that the run is about to write.

        Only recorded files are removed to make room for another run.
        """
        run = self.read_run()
        atomic.write_json(self.run_file, run | {"files": sorted({*recorded_files(self.run_file), *names})})

    def check_one_run(self) -> None:
        """Raise ValueError if the directory holds an ensemble or a sweep, which have no model of their own."""
        if self.run_file.exists():
            return
        if self.holds_ensemble():
            raise ValueError(f"{self.path} holds an ensemble, which has no model of its own; give one of its runs")
        if (self.path / SWEEP).exists():
            raise ValueError(f"{self.path} holds a sweep; give one of its runs, which are in {self.path / 'cells'}")

    def check_for_ensemble(self, overwrite: bool) -> None:
        """Raise ValueError if an ensemble must not be written here."""
        self.check_is_no_file()
        self.check_folders(self.predictions)
        if self.run_file.exists() or (self.path / "config.json").exists():
            raise ValueError(f"--output-dir {self.path} holds a run or a model; choose another")
        if not self.holds_ensemble():
            self.check_no_sweep()
            self.check_no_others((*_RESULTS, self.ensemble_file.name), "the ensemble")
        elif self.results_file.exists() and not overwrite:
            raise ValueError(f"--output-dir {self.path} holds results; give --overwrite or choose another")

    def clear_ensemble(self) -> None:
        """Remove the files that an ensemble wrote, except `ensemble_file`, and nothing else."""
        if self.ensemble_file.exists():
            self._remove_files((*_ENSEMBLE_FILES, *recorded_files(self.ensemble_file)))
        self.remove_leftovers()

    def partial_files(self) -> list[Path]:
        """Return the partial files of killed processes: those of a run, an ensemble or a sweep."""
        found = (*self.path.glob(".*"), *self.predictions.glob(".*"))
        return [path for path in found if _PARTIAL.fullmatch(path.name)]

    def remove_leftovers(self) -> None:
        """Remove partial files of a killed process, and the checkpoints of a complete run."""
        for path in self.partial_files():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        if self.results_file.exists() and self.run_file.exists():
            self.remove_checkpoints()

    def remove_checkpoints(self) -> None:
        """Remove all checkpoints, and their folder if it is then empty."""
        for checkpoint in checkpoints_in(self.checkpoints):
            remove_checkpoint(checkpoint)
        remove_if_empty(self.checkpoints)

    def clear_intermediate(self) -> None:
        """Remove the run on the intermediate task, and its folder if it is then empty."""
        before = RunDirectory(self.intermediate)
        if before.run_file.exists():
            before.clear()
            remove_if_empty(before.path)

    def clear(self) -> None:
        """Remove the files of the run that `run_file` describes, and nothing else. Without that file, do nothing.

        Raises:
            ValueError: the file is not a valid run.json; raised before anything is removed.
        """
        if not self.run_file.exists():
            return
        files = recorded_files(self.run_file)
        self.remove_leftovers()
        self.remove_checkpoints()
        self.clear_intermediate()
        self._remove_files((*_ENSEMBLE_FILES, *files, *_RUN_FILES))

    def _remove_files(self, names: Sequence[str]) -> None:
        for name in names:
            if not (self.path / name).is_dir():
                (self.path / name).unlink(missing_ok=True)
        remove_if_empty(self.predictions)


def recorded_files(file: Path) -> list[str]:
    """Return the file names, relative to the directory of `file`, that this run.json or ensemble.json records.

    Raises:
        ValueError: the file is invalid, or names a path outside of its directory.
    """
    names = read_object(file).get("files", [])
    if not isinstance(names, list) or not all(isinstance(name, str) and _is_inside(name) for name in names):
        raise ValueError(f"{file}: files must be a list of names of files in its directory, got {names!r}")
    return names


def _is_inside(name: str) -> bool:
    path = Path(name)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts


def remove_if_empty(folder: Path) -> None:
    """Remove `folder` if it exists and is empty."""
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
