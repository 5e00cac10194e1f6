"""A drop in score: how far a model is below another one, in points, and whether that is within a limit."""

POINTS = 100.0
"""Points in a score of 1."""

_ROUNDING = 1e-9


def drop_in_points(baseline: float, score: float) -> float:
    """How many points a score is below the baseline's; both are fractions. Negative if it is above."""
    return POINTS * (baseline - score)


def within(value: float, most: float) -> bool:
    """Whether a value is at most `most`, as numbers are written: 0.5 points that differences make 0.5000000001 are."""
    return value <= most + _ROUNDING
