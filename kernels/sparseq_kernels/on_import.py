"""Something to do once another module is imported, without importing it: by a finder that removes itself."""

import importlib.util
import sys
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

Action = Callable[[ModuleType], None]


def after_import(module: str, action: Action) -> None:
    """Calls `action` with the module now, if it is imported already, and otherwise as soon as it is. A second action
    of the same name for the same module takes the first one's place."""
    if sys.modules.get(module) is not None:
        action(sys.modules[module])
        return
    forget(module, action)
    sys.meta_path.insert(0, _Finder(module, action))


def forget(module: str, action: Action) -> None:
    """Takes back what `after_import` was asked for, if it is still to come."""
    same = (module, action.__module__, action.__qualname__)
    sys.meta_path[:] = [one for one in sys.meta_path if not (isinstance(one, _Finder) and one.key == same)]


class _Finder(MetaPathFinder):
    """Finds the module as any other finder does, and adds to its loading."""

    def __init__(self, module: str, action: Action) -> None:
        self.module, self.action = module, action
        self.key = (module, action.__module__, action.__qualname__)
        self._searching = False

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self.module or self._searching:
            return None
        self._searching = True
        try:
            spec = importlib.util.find_spec(fullname)
        finally:
            self._searching = False
        if spec is not None and spec.loader is not None:
            spec.loader = _ThenAct(spec.loader, self)
        return spec


class _ThenAct(Loader):
    """Loads a module as its own loader does, puts that back in its place, and acts."""

    def __init__(self, loader: Any, finder: _Finder) -> None:
        self._loader, self._finder = loader, finder

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        module: ModuleType | None = self._loader.create_module(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        forget(self._finder.module, self._finder.action)
        self._finder.action(module)
