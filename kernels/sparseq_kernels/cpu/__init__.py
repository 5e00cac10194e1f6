"""The CPU's own implementations, where they beat the reference.

int8 products run on the processor's int8 units (AVX-512 VNNI, AMX, ...) through `torch._int_mm`, which is oneDNN. What
surrounds them, quantizing and scaling, is torch's operators (the backend "cpu"), or native code of one pass each where
there is a C compiler (the backend "native"). Both give the same integers, bit for bit.
"""
