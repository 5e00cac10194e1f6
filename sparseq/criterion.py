"""What pruning ranks weights by, and how units of several layers are ranked together then."""

from sparseq.errors import InputError
from sparseq_kernels.patterns import Pattern

MAGNITUDE, FISHER = "magnitude", "fisher"
CRITERIA = (MAGNITUDE, FISHER)
FORMER = MAGNITUDE
"""Of all runs before there was a choice."""


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
