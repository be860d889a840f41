"""Training on other English tasks first: encoder and fusion are handed on, the head is not.

The run on the last of the intermediate tasks lies in `OUT/intermediate`, an ordinary run whose own intermediate tasks
are the ones before it, and so on. Each is trained with the run's options; what was left to XTREME's presets takes those
of its own task.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from ..evaluation.evaluate import model_for
from ..models.whole_weights import load_whole
from ..runs.run_config import RunConfig
from ..runs.run_directory import RunDirectory
from .shared_inputs import encode_all, load_data, load_shared_inputs


@dataclass(frozen=True)
class IntermediateRun:
    """The run on an intermediate task that another run starts from."""

    config: RunConfig

    @classmethod
    def of(cls, config: RunConfig) -> IntermediateRun | None:
        """The last one before a run whose presets are not yet filled in; None where it has none."""
        if not config.intermediate:
            return None
        task, _, data_dir = config.intermediate[-1].partition(":")
        return cls(
            dataclasses.replace(
                config,
                task=task,
                data_dir=Path(data_dir) if data_dir else None,
                output_dir=RunDirectory(config.output_dir).intermediate,
                languages=(),
                intermediate=config.intermediate[:-1],
            )
        )

    def check(self) -> list[str]:
        """Look at the place of this run, and read and encode the data of its task, and of those before it.

        Returns:
            The hash of each task's data, in order.

        Raises:
            ValueError, OSError: files of others that the run would replace, or whatever is wrong with the data.
        """
        RunDirectory(self.config.output_dir).check(self.config.model, overwrite=False, resume=True)
        before = IntermediateRun.of(self.config)
        earlier = [] if before is None else before.check()
        config = self.config.with_presets()
        data = load_data(config)
        encode_all(config, load_shared_inputs(config, data))
        return [*earlier, data.sha256()]

    def train(self, *, progress: bool = False) -> list[dict[str, Any]]:
        """Train, or go on training, and say for each intermediate task in order what came of it."""
        from .train import train

        results = train(self.config, resume=True, progress=progress)
        earlier: list[dict[str, Any]] = results.get("intermediate", [])
        return [*earlier, {"task": self.config.task, "train": results["train"], "config": results["config"]}]

    def hand_over(self, model: PreTrainedModel) -> None:
        """Put the trained encoder and fusion into `model`; a frozen encoder is the same already.

        Raises:
            ValueError, OSError: the trained model is damaged or lacks weights.
        """
        trained = load_whole(model_for(self.config.task_object), self.config.output_dir)
        model.fusion.load_state_dict(trained.fusion.state_dict())  # type: ignore[union-attr]
        if not self.config.freeze_encoder:
            model.encoder = trained.encoder.to(model.device)
