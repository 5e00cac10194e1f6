"""Recipe files, before they become a `Recipe`: untrusted TOML or YAML, read with bounds on everything; and written.

A setting is a number, a text or a list of them. No recipe needs more than a few levels, or YAML's references, whose
expansion is not bounded by the size of the file. The type of a YAML scalar is determined by its setting and not by
YAML, which reads `2:4` as 124 and `no` as False.
"""

import importlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sparseq.errors import InputError
from sparseq.extras import naming_extra
from sparseq.reading import brief, read_text

MOST_BYTES = 64 * 2**10
MOST_LEVELS = 16
SUFFIXES = (".toml", ".yaml", ".yml")

_NOTHING = ("", "~", "null")

# Bare and quoted parts of a dotted key; the standard library's parser needs quadratic time in their number.
_KEY_PARTS = re.compile(
    r"""(?<![\w-])(?:(?:[\w-]+|"[^"\n]*"|'[^'\n]*')[ \t]*\.[ \t]*)""" + "{" + str(2 * MOST_LEVELS) + "}"
)


@naming_extra("train")
def read_settings(path: str | Path, what: str = "recipe", suffixes: tuple[str, ...] = SUFFIXES) -> dict[str, Any]:
    """The settings in a .toml, .yaml or .yml file.

    TOML's values have their types; YAML's are texts, lists of texts, and None for an unquoted `null`, `~` or nothing.

    what: the file's name in messages. suffixes: those that are read.

    Raises InputError for another suffix; for a file that is not a regular one with at most `MOST_BYTES` of UTF-8 text;
    for invalid syntax; for nesting deeper than `MOST_LEVELS`; for a setting given twice; for anchors, aliases or tags
    of YAML; and for a file that is not a table of settings.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in suffixes:
        named = suffixes[:2]  # .yml is .yaml
        raise InputError(
            f"{what} {path} is " + (f"neither {' nor '.join(named)}" if len(named) > 1 else f"no {named[0]}")
        )
    try:
        content = read_text(path, MOST_BYTES)
    except InputError as error:
        raise InputError(f"cannot read {what} {path}: {error}") from error
    try:
        values = _parse_toml(content) if suffix == ".toml" else _parse_yaml(content)
    except RecursionError as error:
        raise InputError(f"{what} {path} is nested deeper than {MOST_LEVELS} levels") from error
    except ValueError as error:
        raise InputError(f"{what} {path} is not valid {suffix[1:]}: {brief(error)}") from error
    if not isinstance(values, dict):
        raise InputError(f"{what} {path} is not a table of settings such as 'sparsity = 0.6'")
    return values


@naming_extra("train")
def as_toml(values: Mapping[str, Any]) -> str:
    """The settings as a TOML document, without those that are None; `read_settings` reads it back."""
    import tomli_w

    given = {name: value for name, value in values.items() if value is not None}
    return tomli_w.dumps({name: list(value) if isinstance(value, tuple) else value for name, value in given.items()})


def _parse_toml(content: str) -> Any:
    try:
        tomllib = importlib.import_module("tomllib")
    except ModuleNotFoundError:  # Python 3.10
        tomllib = importlib.import_module("tomli")
    if _KEY_PARTS.search(content):
        raise RecursionError
    return tomllib.loads(content)


def _parse_yaml(content: str) -> Any:
    import yaml

    try:
        _check_events(yaml.parse(content, yaml.SafeLoader))
        root = yaml.compose(content, yaml.SafeLoader)
        _check_names(root)
        found = None if root is None else _value(root)
        return {} if found is None else found
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from None


def _value(node: Any) -> Any:
    """The value of a YAML node: text, None, or a list or dict of them. Its depth was checked before."""
    import yaml

    if isinstance(node, yaml.MappingNode):
        return {str(key.value): _value(value) for key, value in node.value}
    if isinstance(node, yaml.SequenceNode):
        return [_value(item) for item in node.value]
    return None if node.style is None and node.value.lower() in _NOTHING else node.value


def _check_events(events: Any) -> None:
    """Refuses YAML that expands or recurses, event by event, before anything is built from it."""
    import yaml

    level = 0
    for event in events:
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise ValueError(f"anchors and aliases (& and *) are not read{_at(event)}")
        if getattr(event, "tag", None) is not None:
            raise ValueError(f"tags (!) are not read{_at(event)}")
        level += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if level > MOST_LEVELS:
            raise RecursionError


def _check_names(root: Any) -> None:
    """Refuses a setting that is given twice; YAML's loader would use the last one."""
    import yaml

    seen: set[str] = set()
    for key, _ in root.value if isinstance(root, yaml.MappingNode) else ():
        if not isinstance(key, yaml.ScalarNode):
            raise ValueError(f"a setting's name must be text{_at(key)}")
        if key.value in seen:
            raise ValueError(f"a setting is given twice{_at(key)}")
        seen.add(key.value)


def _at(place: Any) -> str:
    return f" (line {place.start_mark.line + 1})"
