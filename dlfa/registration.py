"""Register DLFA with transformers' Auto classes without importing transformers, which takes seconds."""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Sequence
from types import ModuleType

_AUTO_CONFIG = "transformers.models.auto.configuration_auto"


def register_when_transformers_loads() -> None:
    """Register `dlfa` with AutoConfig now if its module is loaded, else right after it has been loaded.

    This may run during transformers' own imports, so it imports only what AutoConfig's module has loaded. The models
    are registered when the first DLFAConfig is created, because Auto classes need a config to find them.
    """
    if _AUTO_CONFIG in sys.modules:
        importlib.import_module("dlfa.models.configuration")
    elif not any(isinstance(finder, _AfterAutoConfig) for finder in sys.meta_path):
        sys.meta_path.insert(0, _AfterAutoConfig())


class _AfterAutoConfig(importlib.abc.MetaPathFinder):
    """Finds transformers' AutoConfig module in the usual way, and registers DLFA after it has been executed."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != _AUTO_CONFIG:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = _ThenRegister(spec.loader)
        return spec


class _ThenRegister(importlib.abc.Loader):
    def __init__(self, loader: importlib.abc.Loader) -> None:
        self.loader = loader

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        if module.__spec__ is not None:
            module.__spec__.loader = self.loader
        self.loader.exec_module(module)
        importlib.import_module("dlfa.models.configuration")
