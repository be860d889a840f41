"""DLFA: fuse the last and lower layers of a multilingual encoder by attention, for zero-shot cross-lingual transfer.

The names below are imported on first use, so that `import dlfa` and the command line start quickly. transformers'
Auto classes support `model_type="dlfa"` once this package and transformers are both imported, in either order.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from . import registration

if TYPE_CHECKING:
    from dlfa_kernels import __version__ as __version__

    from .models.configuration import DLFAConfig
    from .models.modeling import (
        DLFAForQuestionAnswering,
        DLFAForSequenceClassification,
        DLFAForTokenClassification,
        DLFAModel,
    )

__all__ = [
    "DLFAConfig",
    "DLFAForQuestionAnswering",
    "DLFAForSequenceClassification",
    "DLFAForTokenClassification",
    "DLFAModel",
]

registration.register_when_transformers_loads()


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return importlib.import_module("dlfa_kernels").__version__
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(".models.configuration" if name == "DLFAConfig" else ".models.modeling", __name__)
    return getattr(module, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
