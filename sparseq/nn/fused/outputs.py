"""Results of the classes that transformers' models return."""

import functools
from importlib import import_module
from typing import Any


def make_output(name: str, values: dict[str, Any]) -> Any:
    """An output of the class `name` of transformers.modeling_outputs. values: in the order of its fields."""
    cls, attributes = _class(name, tuple(values))
    if attributes is None:
        return cls(**values)
    return _filled(cls, attributes, values)


def _filled(cls: Any, attributes: dict[str, Any], values: dict[str, Any]) -> Any:
    """As the constructor makes it, which lists the class's fields anew for each of them."""
    made = cls.__new__(cls)
    vars(made).update(attributes)
    for key, value in values.items():
        if value is not None:
            made[key] = value
    return made


@functools.cache
def _class(name: str, keys: tuple[str, ...]) -> tuple[Any, dict[str, Any] | None]:
    """The class, and an empty output's attributes; None where this transformers fills its outputs otherwise."""
    # A model of transformers has imported it.
    cls = getattr(import_module("transformers.modeling_outputs"), name)
    attributes: dict[str, Any] = dict(vars(cls()))
    values = dict.fromkeys(keys, (0,))
    ours, theirs = _filled(cls, attributes, values), cls(**values)
    alike = list(ours.items()) == list(theirs.items()) and vars(ours) == vars(theirs)
    return cls, attributes if alike else None
