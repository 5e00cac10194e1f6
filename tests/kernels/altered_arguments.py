"""Calls every op with one argument altered at a time, made from the schemas: a program of its own, since what it looks
for is a crash. Prints a line for each outcome that is neither InputError nor the reference's result, and `done OP`.

    python altered_arguments.py [--backend NAME] [OP ...]
"""

import argparse
import faulthandler
import math
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from samples import SAMPLES, call
from torch import Tensor

from sparseq_kernels import InputError, use_backend
from sparseq_kernels.backends import runnable
from sparseq_kernels.registry import OPS as REGISTRY

# Ops that round floats of their own making.
ROUNDED = ("gelu_quantize_rows", "layer_norm_quantize_rows")
DTYPES = (
    torch.float64,
    torch.float16,
    torch.bfloat16,
    torch.float8_e4m3fn,
    torch.complex64,
    torch.bool,
    torch.uint8,
    torch.int8,
    torch.int16,
    torch.int32,
    torch.int64,
)
# Each is compared with the reference, which so is tried, too.
BACKENDS = [name for name in runnable() if name != "reference"]
NO_TENSORS = (None, 3, 2.5, "text", [[1.0, 2.0]], (), b"", object())


def altered_tensor(x: Tensor) -> Iterator[tuple[str, Any]]:
    for i in range(x.dim()):
        for change, size in (
            ("one more", x.shape[i] + 1),
            ("64 more", x.shape[i] + 64),
            ("100 times", x.shape[i] * 100),
        ):
            yield f"{change} in dim {i}", x.new_ones([size if j == i else n for j, n in enumerate(x.shape)])
        if x.shape[i]:
            yield f"one less in dim {i}", x.narrow(i, 0, x.shape[i] - 1)
            yield f"none in dim {i}", x.narrow(i, 0, 0)
    yield "a leading dim", x[None]
    yield "a trailing dim", x[..., None]
    yield "flat", x.reshape(-1)
    yield "a scalar", x.new_ones(())
    yield "one value", x.new_ones(1)
    yield "1 x 1", x.new_ones(1, 1)
    yield "empty", x.new_empty(0)
    for dtype in DTYPES:
        if dtype != x.dtype:
            yield str(dtype), x.to(dtype)
    yield "on meta", x.to("meta")
    if x.dtype != torch.bool:
        yield "negated", -x
        yield "a view that negates", torch._neg_view(-x)
        yield "far beyond", torch.full_like(x, 100 if x.dtype in (torch.int8, torch.uint8) else 30000)
    yield "zeros", torch.zeros_like(x)
    yield "zeros without memory", torch._efficientzerotensor(x.shape, dtype=x.dtype)
    if x.dim():
        yield "reversed", x.flip(-1)
        yield "strided", torch.stack((x, x), -1)[..., 0]
        yield "sparse", x.to_sparse()
    if x.dim() == 2:
        yield "turned", x.t().contiguous().t()
        yield "sparse by row", x.to_sparse_csr()
    if x.is_floating_point():
        yield "NaN", torch.full_like(x, math.nan)
        yield "Inf", torch.full_like(x, math.inf)
        if x.dim() and x.numel():
            yield "mkldnn", x.to_mkldnn()
        yield "quantized", torch.quantize_per_tensor(x.float(), 0.1, 0, torch.qint8)
    for other in NO_TENSORS:
        yield f"{other!r:.20}", other


def altered(value: Any, kind: str) -> Iterator[tuple[str, Any]]:
    """(what was done, the altered value) of an argument of the schema's type `kind`."""
    if "List" in kind:
        yield from ((f"{other!r:.20}", other) for other in (None, 3, "text", [None], [3.5], ["x"]))
        if value is not None:
            yield "none of them", []
            yield "one less", value[:-1]
            yield "one more", [*value, *value[:1]]
            yield "the other way round", value[::-1]
            for i, one in enumerate(value):
                changes = altered_tensor(one) if isinstance(one, Tensor) else [("not", not one)]
                yield from ((f"[{i}] {what}", [*value[:i], new, *value[i + 1 :]]) for what, new in changes)
    elif "Tensor" in kind:
        if value is None:
            yield "a vector", torch.ones(5)
            yield "one value", torch.ones(1)
            yield "a bool", torch.ones(4, 6, dtype=torch.bool)
            yield "a list", [1.0]
        else:
            yield from altered_tensor(value.detach())
    elif kind == "int":
        for number in (0, 1, -1, 2, 3, 9, 12, 16, 17, 24, 33, 2**40, 8.0, 8.5, "8", None, True, [8]):
            yield repr(number), number
    elif kind == "float":
        for number in (0.0, -1.0, 1.5, math.nan, math.inf, -math.inf, "1", None, [0.5]):
            yield repr(number), number
    elif kind == "str":
        for text in ("", "bogus", "9:4", "0x1", "4x4", "tanh", "relu", "dense", "bitmask", None, 3, b"none"):
            yield repr(text), text
    elif "ScalarType" in kind:
        for dtype in (None, torch.float32, *DTYPES, "float32", 6):
            yield str(dtype), dtype
    elif kind == "bool":
        for flag in (True, False, None, "yes", 2, [True]):
            yield repr(flag), flag
    else:
        raise AssertionError(f"no alterations are known of a {kind}: add them")


def outcome(op: str, args: tuple[Any, ...]) -> Any:
    """The results as a list, or the InputError."""
    try:
        results = REGISTRY[op].run(*args)
    except InputError as error:
        return error
    return [results] if isinstance(results, Tensor) else list(results)


def fault(op: str, args: tuple[Any, ...], backend: str) -> str | None:
    """What is wrong with the outcome, if anything."""
    try:
        with use_backend(backend), torch.no_grad():
            # By the way of the layers, which also meets what is no plain tensor.
            found = [call(op, *args)]
            if found[0].is_meta:
                return None if on_meta(args) else "a result on meta"
            # Of `qat_linear` the others are each backend's own.
            if op != "qat_linear" and all(map(plainly, args)):
                found = outcome(op, args)
        with use_backend("reference"), torch.no_grad():
            expected = outcome(op, tuple(map(resolved, args)))
    except InputError as error:
        return None if str(error).count("\n") == 0 else f"more than a sentence: {error}"
    except Exception as error:  # whatever it is, it is the finding
        return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    if isinstance(found, InputError) or isinstance(expected, InputError):
        return f"refused by one backend alone: {found!r}, {expected!r}"
    for one, right in zip(found, expected, strict=False):
        if one.shape != right.shape or one.dtype != right.dtype:
            return f"{one.dtype} {tuple(one.shape)} for {right.dtype} {tuple(right.shape)}"
        # Between two integers the last place of what is rounded decides.
        atol = 1.0 if op in ROUNDED and one.dtype == torch.int8 else 2e-2
        if not torch.allclose(one.double(), right.double(), rtol=2e-2, atol=atol, equal_nan=True):
            return "another result than the reference's"
    return None


def on_meta(args: tuple[Any, ...]) -> bool:
    return all(
        one.is_meta for arg in args for one in (arg if isinstance(arg, list) else [arg]) if isinstance(one, Tensor)
    )


def plainly(arg: Any) -> bool:
    return not isinstance(arg, Tensor) or not (arg.is_neg() or arg._is_zerotensor())


def resolved(arg: Any) -> Any:
    if not isinstance(arg, Tensor) or plainly(arg):
        return arg
    return torch.zeros(arg.shape, dtype=arg.dtype) if arg._is_zerotensor() else arg.resolve_neg()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", choices=BACKENDS, help="all by default")
    parser.add_argument("ops", nargs="*", help="all by default")
    given = parser.parse_args()
    backends = [given.backend] if given.backend else BACKENDS
    faulthandler.enable()
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    for op in given.ops or REGISTRY:
        count = 0
        for number, sample in enumerate(SAMPLES[op](torch.float32)):
            args = REGISTRY[op].complete(tuple(one.detach() if isinstance(one, Tensor) else one for one in sample))
            for backend in backends:
                wrong = fault(op, args, backend)
                if wrong:
                    print(f"{op}, sample {number} as it is, {backend}: {wrong}")
                for place, argument in enumerate(REGISTRY[op].arguments):
                    for what, new in altered(args[place], argument.type):
                        if place == 0 and new == []:
                            continue  # `call` gives the first result, and there is none.
                        count += 1
                        case = f"{op}, sample {number}, {argument.name}: {what}, {backend}"
                        print(case, file=sys.stderr, flush=True)  # The last line is where a crash was.
                        wrong = fault(op, (*args[:place], new, *args[place + 1 :]), backend)
                        if wrong:
                            print(f"{case}: {wrong}", flush=True)
        print(f"done {op} {count}", flush=True)


if __name__ == "__main__":
    main()
