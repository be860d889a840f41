"""Training on other English tasks first: encoder and fusion are passed on, the head is not.

The run on the last intermediate task is in `OUT/intermediate`. It is an ordinary run whose own intermediate tasks are
the ones before it, and so on. Each is trained with the run's options; hyper-parameters without a value use the preset
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
    """The run on an intermediate task from which another run starts."""

    config: RunConfig

    @classmethod
    def of(cls, config: RunConfig) -> IntermediateRun | None:
        """Return the last intermediate run of `config`, whose presets are not filled in yet; None if it has none."""
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

    def check(self, encoder: PreTrainedModel, *, progress: bool = False) -> list[str]:
        """Check the directory of this run, and read and encode the data of its task and of those before it.

        Args:
            encoder: the encoder that all of them start from.
            progress: show bars on standard error.

        Returns:
            The hash of each task's data, in order.

        Raises:
            ValueError, OSError: the run would replace other files, the data are invalid, or a token id is not in the
                encoder's embedding table.
        """
        RunDirectory(self.config.output_dir).check(self.config.model, overwrite=False, resume=True)
        before = IntermediateRun.of(self.config)
        earlier = [] if before is None else before.check(encoder, progress=progress)
        config = self.config.with_presets()
        data = load_data(config)
        encode_all(config, load_shared_inputs(config, data), encoder, progress=progress)
        return [*earlier, data.sha256]

    def train(self, *, progress: bool = False) -> list[dict[str, Any]]:
        """Train, or resume training, and return the results of each intermediate task in order."""
        from .train import train

        results = train(self.config, resume=True, progress=progress)
        earlier: list[dict[str, Any]] = results.get("intermediate", [])
        return [*earlier, {"task": self.config.task, "train": results["train"], "config": results["config"]}]

    def hand_over(self, model: PreTrainedModel) -> None:
        """Copy the trained fusion and encoder into `model`; a frozen encoder is unchanged and not copied.

        Raises:
            ValueError, OSError: the trained model is damaged or lacks weights.
        """
        trained = load_whole(model_for(self.config.task_object), self.config.output_dir)
        model.fusion.load_state_dict(trained.fusion.state_dict())  # type: ignore[union-attr]
        if not self.config.freeze_encoder:
            model.encoder = trained.encoder.to(model.device)
