"""The CPU's own implementations, where they beat the reference. int8 products run on the processor's int8 units
(AVX-512 VNNI, AMX, ...) through `torch._int_mm`, which is oneDNN."""
