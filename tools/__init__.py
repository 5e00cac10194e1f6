"""Programs that are no benchmarks: kernels compiled for absent GPUs, tuning, and the run on a GPU."""
