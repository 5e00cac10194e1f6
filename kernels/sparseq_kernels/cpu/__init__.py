"""The CPU's own implementations, where they beat the reference.

int8 products run on the processor's int8 units (AVX-512 VNNI, AMX) through `torch._int_mm`, which is oneDNN, where
there are such units and the sums are exact; elsewhere in native code, or without it as fp32 products (`int8_matmul`).
What surrounds them, quantizing and scaling, is torch's operators (the backend "cpu"), or native code of one pass each
where there is a C compiler (the backend "native"). All give the same integers, bit for bit.
"""
