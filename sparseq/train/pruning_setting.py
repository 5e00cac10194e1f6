"""How a recipe's settings of pruning go together."""

from typing import Protocol

from sparseq.criterion import FISHER, check_fisher
from sparseq.errors import InputError
from sparseq_kernels.patterns import Pattern


class Settings(Protocol):
    """What is looked at of a `Recipe`, which is built on this module."""

    @property
    def sparsity(self) -> float: ...
    @property
    def pattern(self) -> str: ...
    @property
    def criterion(self) -> str: ...
    @property
    def scope(self) -> str: ...
    @property
    def prune_embeddings(self) -> bool: ...
    @property
    def prune_warmup(self) -> float: ...
    @property
    def prune_end(self) -> float: ...
    @property
    def epochs(self) -> float: ...


def check_pruning(recipe: Settings) -> None:
    """Raises InputError for settings of mp that contradict each other."""
    Pattern.parse(recipe.pattern).check_sparsity(recipe.sparsity)
    if recipe.criterion == FISHER:
        check_fisher(recipe.scope, embeddings=recipe.prune_embeddings)
        if not (recipe.epochs and recipe.prune_end):
            raise InputError(
                "--criterion fisher ranks weights by their gradients, and pruning would end before training "
                "begins: raise --epochs and --prune-end above 0, or give --criterion magnitude"
            )
    if recipe.prune_warmup > recipe.prune_end:
        raise InputError(
            f"pruning cannot end (--prune-end {recipe.prune_end:g}) before it starts "
            f"(--prune-warmup {recipe.prune_warmup:g})"
        )
