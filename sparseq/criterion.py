"""What pruning ranks weights by, and how units of several layers are ranked together then."""

from sparseq_kernels.patterns import Pattern

MAGNITUDE, FISHER = "magnitude", "fisher"
CRITERIA = (MAGNITUDE, FISHER)


def default_scope(criterion: str, pattern: Pattern) -> str:
    """The scope that "auto" stands for.

    Of magnitudes it depends on the pattern. What "fisher" estimates is the loss that a removal adds, which is the same
    quantity in all layers.
    """
    return "global" if criterion == FISHER else pattern.default_scope
