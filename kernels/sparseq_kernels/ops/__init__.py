"""The ops, one file each: schema, typed function, fake version, validation, autograd and FLOP count.

`OP` in each file is the op, `BACKWARD` that of its backward. Importing a file registers them as `torch.ops.sparseq.*`.

Shapes: x [..., K], weight [N, K], mask [N, K] bool (True is kept), y [..., N]. Optional scales: given, they are used;
absent, they follow from the maximum (`numerics.scale_from_max`). Results are contiguous whatever the layout of the
arguments. Integers, and scales that are returned beside them, are constants to autograd.
"""
