"""What all host code shares: the device, launches, their cache, and the configurations of matrix products.

Importing this package imports no Triton.
"""
