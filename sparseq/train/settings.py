"""A setting of a recipe: its help, the values it accepts, and how text or a value in a file is parsed."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from sparseq.errors import InputError
from sparseq_kernels.untrusted import quoted


@dataclass(frozen=True)
class Setting:
    """One setting, stored in the metadata of the dataclass field, and used by the command line and recipe files.

    parse: converts text from the command line, or a TOML or YAML value, to the field's value; the message of its
    ValueError says what it expects. group: the heading in `--help`. choices: the allowed values, if they can be listed.
    resumable: False if another value makes it another run.
    """

    parse: Callable[[Any], Any]
    group: str
    help: str
    metavar: str | None = None
    choices: tuple[Any, ...] = ()
    resumable: bool = False

    def value(self, name: str, raw: Any, file: str | None = None) -> Any:
        """`raw` as the value of this setting.

        Raises InputError, naming the setting, what it accepts, and the `file` that it comes from, if any.
        """
        what = flag(name) if file is None else f"{file}: {flag(name)}"
        try:
            value = self.parse(raw)
        except (ValueError, TypeError) as error:
            raise InputError(f"{what} wants {error}, not {quoted(raw)}") from None
        if self.choices and value is not None and value not in self.choices:
            raise InputError(f"{what} wants one of {', '.join(map(str, self.choices))}, not {quoted(raw)}")
        return value


def flag(name: str) -> str:
    """A setting's name on the command line; in recipe files and Python it has underscores and no leading dashes."""
    return "--" + name.replace("_", "-")


def setting(default: Any, parse: Callable[[Any], Any], group: str, help: str, **rest: Any) -> Any:
    """A dataclass field that carries its `Setting`."""
    return field(default=default, metadata={"setting": Setting(parse, group, help, **rest)})


def text(raw: Any) -> str | None:
    """A non-empty string, or None if none is given."""
    if raw is None:
        return None
    if not isinstance(raw, str) or not raw.strip() or not _writable(raw):
        raise ValueError("text")
    return raw


def number(low: float = -math.inf, high: float = math.inf, *, open_low: bool = False, open_high: bool = False) -> Any:
    """A parser of finite numbers between `low` and `high` (an open end is excluded)."""

    def parse(raw: Any) -> float:
        wanted = ValueError(f"a number {_range(low, high, open_low, open_high)}".rstrip())
        if isinstance(raw, bool) or not isinstance(raw, (int, float, str)):
            raise wanted
        try:
            value = float(raw)
        except (ValueError, OverflowError):
            raise wanted from None
        inside = (low < value if open_low else low <= value) and (value < high if open_high else value <= high)
        if not math.isfinite(value) or not inside:
            raise wanted
        return value

    return parse


def whole(low: int = 0, high: int | None = None) -> Any:
    """A parser of whole numbers from `low` to `high`; accepts 8, 8.0 and 8e0, as numbers and as text."""

    def parse(raw: Any) -> int:
        wanted = ValueError(f"a whole number of at least {low}" + ("" if high is None else f" and at most {high}"))
        if isinstance(raw, bool) or not isinstance(raw, (int, float, str)):
            raise wanted
        try:
            exact = float(raw)
            value = raw if isinstance(raw, int) else int(exact)
        except (ValueError, OverflowError):  # infinity gives OverflowError
            raise wanted from None
        if value != exact or value < low or (high is not None and value > high):
            raise wanted
        return value

    return parse


def optional(parse: Callable[[Any], Any]) -> Any:
    """The same parser, which also accepts None (not given)."""
    return lambda raw: None if raw is None else parse(raw)


_WORDS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


def auto(parse: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The same parser, which also accepts the word auto."""

    def parse_or_auto(raw: Any) -> Any:
        if raw == "auto":
            return raw
        try:
            return parse(raw)
        except ValueError as error:
            raise ValueError(f"{error}, or auto") from None

    return parse_or_auto


def yes_no(raw: Any) -> bool:
    """True or False, from a boolean or from one of the words of YAML 1.1."""
    if isinstance(raw, str) and raw.lower() in _WORDS:
        return _WORDS[raw.lower()]
    if not isinstance(raw, bool):
        raise ValueError("true or false")
    return raw


def names(raw: Any) -> tuple[str, ...]:
    """Names as a tuple: 'a,b', ['a', 'b'], or 'none' and '' for the empty one."""
    if raw is None or raw == "none":
        return ()
    if isinstance(raw, str):
        raw = [part.strip() for part in raw.split(",") if part.strip()]
    if not isinstance(raw, (list, tuple)) or not all(isinstance(part, str) and _writable(part) for part in raw):
        raise ValueError("names separated by commas, or a list of names, or none")
    return tuple(raw)


def layers(raw: Any) -> int | tuple[int, ...] | None:
    """A number of layers to keep, or the numbers of the kept layers: 3, '3', '0,2,5' or [0, 2, 5]."""
    wanted = ValueError("a number of layers such as 3, or layer numbers such as 0,2,5")
    if raw is None:
        return None
    if isinstance(raw, str) and "," in raw:
        raw = [part for part in raw.split(",") if part.strip()]
    try:
        if isinstance(raw, (list, tuple)):
            chosen = tuple(whole(0)(part) for part in raw)
            if not chosen:
                raise wanted
            return chosen
        return int(whole(1)(raw))
    except ValueError:
        raise wanted from None


def _writable(text: str) -> bool:
    """Whether paths and recipe files can contain the text: without zero characters and halves of surrogate pairs."""
    return "\0" not in text and not any("\ud800" <= character <= "\udfff" for character in text)


def _range(low: float, high: float, open_low: bool, open_high: bool) -> str:
    parts = []
    if low > -math.inf:
        parts.append(f"{'above' if open_low else 'of at least'} {low:g}")
    if high < math.inf:
        parts.append(f"{'below' if open_high else 'at most'} {high:g}")
    return " and ".join(parts)
