"""The quickstart: does fusing a lower layer help across languages? Offline, on a CPU, in under two minutes."""

from .experiment import Settings, run

__all__ = ["Settings", "run"]
