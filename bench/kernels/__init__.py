"""One benchmark an op, of the op's own name."""
