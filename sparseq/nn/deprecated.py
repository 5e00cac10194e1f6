"""Earlier names of methods and attributes, which work for one release more and warn."""

import warnings
from collections.abc import Callable
from typing import Any


def warn_renamed(old: str, new: str, stacklevel: int = 3) -> None:
    """DeprecationWarning, at the caller's caller, that `old` is called `new` now."""
    warnings.warn(f"{old} is deprecated: use {new}", DeprecationWarning, stacklevel=stacklevel)


def renamed_method(old: str, new: str) -> Callable[..., Any]:
    """The method `new` of an instance, under its earlier name."""

    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        warn_renamed(f"{type(self).__name__}.{old}", new)
        return getattr(self, new)(*args, **kwargs)

    method.__name__, method.__doc__ = old, f"Deprecated: use `{new}`."
    return method


def renamed_attribute(old: str, new: str) -> property:
    """The attribute `new` of an instance, under its earlier name."""

    def get(self: Any) -> Any:
        warn_renamed(f"{type(self).__name__}.{old}", new)
        return getattr(self, new)

    def put(self: Any, value: Any) -> None:
        warn_renamed(f"{type(self).__name__}.{old}", new)
        setattr(self, new, value)

    return property(get, put, doc=f"Deprecated: use `{new}`.")
