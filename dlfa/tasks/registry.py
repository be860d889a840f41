"""The tasks of the command line."""

from __future__ import annotations

from . import languages
from .base import SPLITS, HubSource, Preset, Task
from .classification import PairTask
from .question_answering import QuestionAnsweringTask
from .tagging import TaggingTask

UPOS = (
    "ADJ", "ADP", "ADV", "AUX", "CCONJ", "DET", "INTJ", "NOUN", "NUM", "PART", "PRON", "PROPN", "PUNCT", "SCONJ",
    "SYM", "VERB", "X",
)  # fmt: skip
IOB2 = ("O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC")
NLI = ("entailment", "neutral", "contradiction")
XTREME = "google/xtreme"
QA_PRESET = Preset(
    learning_rate=3e-5,
    batch_size=4,
    gradient_accumulation=8,
    epochs=3,
    max_length=384,
    warmup_steps=500,
    select_best=False,
)
SQUAD_HUB = dict.fromkeys(("train", "dev"), HubSource(XTREME, "SQuAD"))
# Paths in the task's folder, or in the layout of XTREME's download.
SQUAD_FILES = {
    "train": ("train-{lang}.json", "train-v1.1.json", "squad/train-v1.1.json"),
    "dev": ("dev-{lang}.json", "dev-v1.1.json", "squad/dev-v1.1.json"),
}
MLQA_FILE = "MLQA_V1/test/test-context-{lang}-question-{lang}.json"


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
    QuestionAnsweringTask(
        name="tydiqa",
        title="question answering, TyDiQA gold passage",
        languages=tuple(languages.TYDIQA),
        labels=(),
        metric="f1",
        preset=QA_PRESET,
        # XTREME tests on the development split, which contains all languages.
        hub=_everywhere(
            HubSource(
                XTREME,
                "tydiqa",
                splits={"train": "train", "dev": "validation", "test": "validation"},
                id_prefix={code: f"{name}-" for code, name in languages.TYDIQA.items()},
            )
        ),
        file_patterns={
            "train": ("train-{lang}.json", "tydiqa-goldp-v1.1-train/tydiqa.{lang}.train.json"),
            "dev": ("dev-{lang}.json", "tydiqa-goldp-v1.1-dev/tydiqa.{lang}.dev.json"),
            "test": ("test-{lang}.json", "tydiqa-goldp-v1.1-dev/tydiqa.{lang}.dev.json"),
        },
    ),
    QuestionAnsweringTask(
        name="xquad",
        title="question answering, XQuAD, trained on SQuAD",
        languages=languages.XQUAD,
        labels=(),
        metric="f1",
        preset=QA_PRESET,
        hub=SQUAD_HUB | {"test": HubSource(XTREME, "XQuAD.{lang}", splits={"test": "validation"})},
        file_patterns=SQUAD_FILES | {"test": ("test-{lang}.json", "xquad.{lang}.json", "xquad/xquad.{lang}.json")},
    ),
    QuestionAnsweringTask(
        name="mlqa",
        title="question answering, MLQA, trained on SQuAD",
        languages=languages.MLQA,
        labels=(),
        metric="f1",
        preset=QA_PRESET,
        mlqa_words=True,
        hub=SQUAD_HUB | {"test": HubSource(XTREME, "MLQA.{lang}.{lang}")},
        file_patterns=SQUAD_FILES
        | {"test": ("test-{lang}.json", *(f"{folder}{MLQA_FILE}" for folder in ("", "mlqa/")))},
    ),
)
TASKS: dict[str, Task] = {task.name: task for task in _TASKS}


def get_task(name: str) -> Task:
    """Return the task with that name.

    Raises:
        ValueError: there is none; the message lists the valid names.
    """
    if name not in TASKS:
        raise ValueError(f"unknown task {name!r}; valid are {', '.join(TASKS)}")
    return TASKS[name]
