"""Modules picked by type or by name."""

from fnmatch import fnmatchcase

from torch import nn

Selector = type[nn.Module] | str


def chosen(name: str, module: nn.Module, include: tuple[Selector, ...], exclude: tuple[Selector, ...]) -> bool:
    """Types and names are two filters: without an included type every type passes, and so for names."""
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
