"""Training on a frozen encoder: its hidden states are computed once, stored on disk, and read by every run."""

from .head import StatesHead
from .inputs import StateInputs
from .store import StateStore

__all__ = ["StateInputs", "StateStore", "StatesHead"]
