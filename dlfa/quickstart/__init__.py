"""The quickstart: test offline, on a CPU, in under two minutes, whether fusing a lower layer helps across languages."""

from .experiment import Settings, run

__all__ = ["Settings", "run"]
