"""The tasks that the command line knows."""

from __future__ import annotations

from . import languages
from .base import SPLITS, HubSource, Preset, Task
from .classification import PairTask
from .tagging import TaggingTask

UPOS = (
    "ADJ", "ADP", "ADV", "AUX", "CCONJ", "DET", "INTJ", "NOUN", "NUM", "PART", "PRON", "PROPN", "PUNCT", "SCONJ",
    "SYM", "VERB", "X",
)  # fmt: skip
IOB2 = ("O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC")
NLI = ("entailment", "neutral", "contradiction")
XTREME = "google/xtreme"


def _everywhere(source: HubSource) -> dict[str, HubSource]:
    return dict.fromkeys(SPLITS, source)


_TASKS: tuple[Task, ...] = (
    TaggingTask(
        name="udpos",
        title="part-of-speech tagging, Universal Dependencies",
        languages=tuple(languages.UDPOS),
        labels=UPOS,
        spans=False,
        metric="f1",
        preset=Preset(epochs=10),
        tag_column="pos_tags",
        hub=_everywhere(HubSource(XTREME, "udpos.{lang}", names=languages.UDPOS)),
    ),
    TaggingTask(
        name="panx",
        title="named-entity tagging, WikiAnn",
        languages=languages.PANX,
        labels=IOB2,
        spans=True,
        metric="f1",
        preset=Preset(epochs=10),
        tag_column="ner_tags",
        hub=_everywhere(HubSource(XTREME, "PAN-X.{lang}")),
    ),
    TaggingTask(
        name="uner",
        title="named-entity tagging, Universal NER",
        languages=languages.UNER,
        labels=IOB2,
        spans=True,
        metric="f1",
        preset=Preset(epochs=10),
        tag_column="ner_tags",
    ),
    PairTask(
        name="xnli",
        title="natural-language inference",
        languages=languages.XNLI,
        labels=NLI,
        metric="accuracy",
        preset=Preset(epochs=5),
        columns=("premise", "hypothesis"),
        hub=_everywhere(HubSource("facebook/xnli", "{lang}")),
    ),
    PairTask(
        name="paws-x",
        title="paraphrase identification",
        languages=languages.PAWS_X,
        labels=("0", "1"),
        metric="accuracy",
        preset=Preset(epochs=5),
        columns=("sentence1", "sentence2"),
        hub=_everywhere(HubSource(XTREME, "PAWS-X.{lang}")),
    ),
    PairTask(
        name="sick",
        title="natural-language inference, SICK and its translations",
        languages=languages.SICK,
        labels=NLI,
        metric="accuracy",
        preset=Preset(epochs=5),
        columns=("premise", "hypothesis"),
    ),
)
TASKS: dict[str, Task] = {task.name: task for task in _TASKS}


def get_task(name: str) -> Task:
    """The task of that name.

    Raises:
        ValueError: there is none; the valid names are listed.
    """
    if name not in TASKS:
        raise ValueError(f"unknown task {name!r}; valid are {', '.join(TASKS)}")
    return TASKS[name]
