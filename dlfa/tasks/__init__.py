"""Tasks: what they are, where their data come from, how a model reads them, how they are scored."""

from .base import Encoding, Feature, HubSource, Preset, Task
from .classification import PairTask
from .question_answering import QuestionAnsweringTask
from .registry import TASKS, get_task
from .tagging import TaggingTask

__all__ = [
    "TASKS",
    "Encoding",
    "Feature",
    "HubSource",
    "PairTask",
    "Preset",
    "QuestionAnsweringTask",
    "TaggingTask",
    "Task",
    "get_task",
]
