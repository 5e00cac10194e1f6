"""Studies: grids of compression runs over methods, sizes, tasks and seeds, and their report."""
