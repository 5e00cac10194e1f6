"""The GPU's implementations, in Triton: NVIDIA and AMD, and the CPU through Triton's interpreter, for tests.

Importing this package imports no Triton; `table` does. A kernel's file holds the kernel and the function that launches
it; `plans` says with which tile sizes, `launch` how, and `numerics` is the arithmetic that all of them share.
"""
