"""Modules picked by type or by name."""

from collections.abc import Iterable
from fnmatch import fnmatchcase

from torch import nn

from sparseq_kernels import InputError

Selector = type[nn.Module] | str


def selectors(name: str, given: Iterable[Selector] | Selector) -> tuple[Selector, ...]:
    """The argument `name` as a tuple; a single type or pattern is allowed. Raises InputError for anything else."""
    alone = isinstance(given, str | type)
    found: tuple[Selector, ...] = (given,) if alone else tuple(given)  # type: ignore[assignment, arg-type]
    for one in found:
        if not isinstance(one, str) and not (isinstance(one, type) and issubclass(one, nn.Module)):
            raise InputError(f"{name} holds {one!r}: it takes module types (nn.Linear) and name patterns ('encoder.*')")
    return found


def chosen(name: str, module: nn.Module, include: tuple[Selector, ...], exclude: tuple[Selector, ...]) -> bool:
    """Filters by types and by names: if no type is included, every type passes, and the same holds for names."""
    if any(matches(name, module, selector) for selector in exclude):
        return False
    types = [s for s in include if not isinstance(s, str)]
    names = [s for s in include if isinstance(s, str)]
    return (not types or any(matches(name, module, s) for s in types)) and (
        not names or any(matches(name, module, s) for s in names)
    )


def matches(name: str, module: nn.Module, selector: Selector) -> bool:
    return fnmatchcase(name, selector) if isinstance(selector, str) else isinstance(module, selector)


def shown(selectors: tuple[Selector, ...]) -> str:
    return repr([s if isinstance(s, str) else s.__name__ for s in selectors])
