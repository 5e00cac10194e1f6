"""Makes sparseq known to transformers, whichever of the two is imported first, without importing the other."""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any

__all__ = ["register_with_transformers"]

# The module that holds transformers' registry of quantizers. transformers imports it with the first model, not before.
REGISTRY = "transformers.quantizers.auto"


def register_with_transformers() -> None:
    """Registers the quantizer of `sparseq.pretrained` now, if transformers has its registry, and otherwise as soon as
    it is imported."""
    if REGISTRY in sys.modules:
        _register()
    elif not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


def _register() -> None:
    # What goes wrong here must not keep transformers from being imported: without the quantizer it refuses the folders.
    try:
        importlib.import_module("sparseq.pretrained").register()
    except (ImportError, AttributeError) as error:
        warnings.warn(
            f"sparseq cannot register with this transformers ({error}): load its folders by sparseq.load", stacklevel=2
        )


class _Finder(MetaPathFinder):
    """Finds the registry as any other finder does, and adds to its loading."""

    def __init__(self) -> None:
        self._searching = False

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != REGISTRY or self._searching:
            return None
        self._searching = True
        try:
            spec = find_spec(fullname)
        finally:
            self._searching = False
        if spec is not None and spec.loader is not None:
            spec.loader = _ThenRegister(spec.loader)
        return spec


class _ThenRegister(Loader):
    """Loads a module as its own loader does, puts that back in its place, and registers."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        module: ModuleType | None = self._loader.create_module(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, _Finder)]
        _register()
