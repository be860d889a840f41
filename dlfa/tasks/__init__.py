"""Tasks: their definitions, the sources of their data, and the encoding and scoring of examples."""

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
