"""Integer helpers for grids and tiles."""


def cdiv(a: int, b: int) -> int:
    """a / b rounded up. Triton's own, which kernels may call too, takes several microseconds."""
    return -(-a // b)


def run_length(count: int) -> int:
    """How many of `count` values side by side a kernel may read at once, aligned to as many: a divisor of it."""
    return 16 if count % 16 == 0 else 1
