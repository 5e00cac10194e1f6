"""Device code: one file for each op, named as the op, and what several of them share."""
