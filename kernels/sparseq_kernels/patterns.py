"""Sparsity patterns: which weights stand or fall together."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from .errors import InputError

_BLOCK = re.compile(r"([1-9]\d*)x([1-9]\d*)")
_N_OF_M = re.compile(r"([1-9]\d*):([1-9]\d*)")


@dataclass(frozen=True)
class Pattern:
    """A sparsity pattern for a weight [out_features, in_features].

    - `unstructured`: every weight by itself;
    - `N:M`: at most N of every M consecutive weights along the input dimension are kept (`2:4`);
    - `RxC`: blocks of R outputs by C inputs (`4x4`), scored by their weights' mean magnitude.
    """

    kind: Literal["unstructured", "n:m", "block"]
    first: int = 1
    second: int = 1

    @classmethod
    def parse(cls, text: "str | Pattern") -> "Pattern":
        """The pattern that `text` names. Raises InputError for any other text."""
        if isinstance(text, Pattern):
            return text
        if text == "unstructured":
            return cls("unstructured")
        if not isinstance(text, str):
            raise InputError(f"a sparsity pattern is given as text such as '4x4', not as a {type(text).__name__}")
        if found := _BLOCK.fullmatch(text):
            rows, columns = int(found[1]), int(found[2])
            return cls("unstructured") if rows == columns == 1 else cls("block", rows, columns)
        if (found := _N_OF_M.fullmatch(text)) and int(found[1]) < int(found[2]):
            return cls("n:m", int(found[1]), int(found[2]))
        raise InputError(
            f"unknown sparsity pattern {text!r}: use 'unstructured', 'N:M' with N < M such as '2:4', "
            "or 'RxC' such as '4x4'"
        )

    def __str__(self) -> str:
        if self.kind == "unstructured":
            return "unstructured"
        return f"{self.first}{':' if self.kind == 'n:m' else 'x'}{self.second}"

    @property
    def block(self) -> tuple[int, int]:
        """(rows, columns) of the unit that is scored and dropped at once: (1, M) for N:M, (1, 1) for unstructured."""
        return {"unstructured": (1, 1), "n:m": (1, self.second), "block": (self.first, self.second)}[self.kind]

    @property
    def unit(self) -> int:
        """Weights that one step of the selection drops: the resolution of a sparsity."""
        return self.second - self.first if self.kind == "n:m" else self.first * self.second

    @property
    def max_sparsity(self) -> float:
        """The highest sparsity the pattern can reach: 1 - N/M for N:M, otherwise 1 (exclusive)."""
        return 1 - self.first / self.second if self.kind == "n:m" else 1.0

    @property
    def default_scope(self) -> str:
        """How units of several layers are ranked together unless said otherwise: "lamp" (layer-adaptive scores) for
        blocks, of which ranking by magnitude alone ("global") removes whole layers; "global" for all others."""
        return "lamp" if self.kind == "block" else "global"

    def divides(self, shape: Sequence[int]) -> bool:
        """Whether a weight of this 2-D shape splits into whole blocks or groups."""
        rows, columns = self.block
        return len(shape) == 2 and shape[0] % rows == 0 and shape[1] % columns == 0

    def check(self, shape: Sequence[int], name: str) -> None:
        """Raises InputError, naming the layer, unless the pattern divides the weight's shape."""
        if not self.divides(shape):
            raise InputError(
                f"pattern {self} does not divide layer {name!r}, whose weight is {' x '.join(map(str, shape))} "
                "(outputs x inputs): choose a pattern that does, or skip such layers (on_mismatch='skip', "
                "--on-mismatch skip)"
            )

    def check_sparsity(self, sparsity: float) -> None:
        """Raises InputError unless 0 <= sparsity < 1 and the pattern can reach it."""
        if isinstance(sparsity, str) or not 0 <= sparsity < 1:
            raise InputError(f"sparsity must be at least 0 and below 1, the share of weights removed, not {sparsity}")
        if self.kind == "n:m" and sparsity > self.max_sparsity + 1e-9:
            raise InputError(
                f"pattern {self} keeps {self.first} of every {self.second} weights, so its sparsity is at most "
                f"{self.max_sparsity:g}, not {sparsity:g}: lower the sparsity or use another pattern"
            )

    def dropped(self, units: int, sparsity: float) -> int:
        """How many of `units` are dropped at a sparsity. For N:M these are groups, which are pruned to N."""
        return min(round(sparsity / self.max_sparsity * units), units)
