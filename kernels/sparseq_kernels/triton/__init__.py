"""The GPU backend, in Triton: for NVIDIA and AMD, and for tests on the CPU in Triton's interpreter.

OP.py is an op's host code and kernels/OP.py its device code. runtime/ has what all host code shares: the device,
launches and their cache, and the choice of a product's tile sizes. Importing this package imports no Triton; `table`
does.
"""
