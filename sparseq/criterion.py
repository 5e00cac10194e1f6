"""Settings of pruning: what weights are ranked by, and how the sparsity rises during training."""

from dataclasses import dataclass

from sparseq.errors import InputError
from sparseq_kernels.patterns import Pattern

MAGNITUDE, FISHER = "magnitude", "fisher"
CRITERIA = (MAGNITUDE, FISHER)
FORMER = MAGNITUDE
"""Of all runs before there was a choice."""
MAX_LAYER_SPARSITY = 0.99
"""By default every layer keeps at least a hundredth of its units."""


@dataclass(frozen=True)
class PruningSettings:
    """Gradual pruning during training: which weights are removed at the end, and when.

    sparsity: the share of the prunable weights that is removed at the end. pattern: "unstructured", "N:M" or "RxC".

    criterion: "magnitude", "fisher" (the loss that a removal adds, estimated from Adam's second moments), or "auto":
    fisher where it can be used. scope, max_layer_sparsity: as in `sparseq.prune.select_masks`.

    schedule: "linear" or "cubic", see `sparseq.prune.SparsitySchedule`. warmup, end: the shares of training before
    pruning starts and at which the sparsity is reached. updates: how many times masks are selected meanwhile. regrow:
    whether removed weights keep being trained, so that they may return.

    embeddings: whether embeddings are pruned as well. on_mismatch: "error", or "skip" for layers that the pattern does
    not divide.

    Raises InputError for a criterion that is unknown, and for shares and numbers out of range. What depends on the
    model, such as the pattern, `sparseq.prune.gradual_pruner` checks.
    """

    sparsity: float = 0.6
    pattern: str = "4x4"
    criterion: str = "auto"
    scope: str = "auto"
    max_layer_sparsity: float = MAX_LAYER_SPARSITY
    schedule: str = "linear"
    warmup: float = 0.1
    end: float = 0.7
    updates: int = 50
    regrow: bool = False
    embeddings: bool = False
    on_mismatch: str = "error"

    def __post_init__(self) -> None:
        if self.criterion not in ("auto", *CRITERIA):
            known = ", ".join(map(repr, ("auto", *CRITERIA)))
            raise InputError(f"criterion is {self.criterion!r}: it must be one of {known}")
        for name, share in (("warmup", self.warmup), ("end", self.end)):
            if not 0 <= share <= 1:
                raise InputError(f"{name} is {share}: it must be a share of training, from 0 to 1")
        if self.updates < 1:
            raise InputError(f"updates is {self.updates}: masks are selected once at least")

    def steps(self, steps: int, criterion: str) -> tuple[int, int]:
        """The steps at which pruning by this criterion starts and ends, in a training of this many steps.

        By gradients it does not end before the first step.
        """
        first, last = round(self.warmup * steps), round(self.end * steps)
        return first, max(last, 1) if steps and criterion == FISHER else last

    def chosen_criterion(self, *, has_gradients: bool) -> str:
        """What "auto" stands for: fisher where it can be used, else magnitude; any other criterion stays.

        has_gradients: whether weights have gradients before the last selection.
        """
        if self.criterion != "auto":
            return self.criterion
        of_magnitudes = self.embeddings or self.scope in ("lamp", "normalized")
        return FISHER if has_gradients and not of_magnitudes else MAGNITUDE


def default_scope(criterion: str, pattern: Pattern) -> str:
    """The scope that "auto" stands for.

    Of magnitudes it depends on the pattern. What "fisher" estimates is the loss that a removal adds, which is the same
    quantity in all layers.
    """
    return "global" if criterion == FISHER else pattern.default_scope


def check_fisher(scope: str, *, embeddings: bool) -> None:
    """Raises InputError for what cannot be ranked by "fisher": scores that are defined of magnitudes, and embeddings,
    of which most rows get no gradient and would all be removed."""
    if scope not in ("auto", "global", "layer"):
        raise InputError(
            f"scope {scope!r} is of magnitudes: with the criterion fisher, whose estimates compare across layers, "
            "it is global or layer"
        )
    if embeddings:
        raise InputError(
            "the criterion fisher would remove all embeddings of tokens that the training rows do not have, as they "
            "get no gradient: prune embeddings by magnitude"
        )
