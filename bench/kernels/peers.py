"""What the kernels are compared with: torch's own operators, as they are and compiled, and torchao's int8 layer."""

import functools
import importlib
import warnings
from collections.abc import Callable, Collection
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.target import Target

OP_BY_OP, COMPILED = "torch, op by op", "torch, compiled"
COMPILED_SIZE, COMPILED_ROWS = "large", (8192, 128)
# nn.Linear, by the dtype of its input and parameters.
LINEAR = {
    torch.float32: "fp32 nn.Linear",
    torch.bfloat16: "bf16 nn.Linear",
    torch.float16: "fp16 nn.Linear",
}
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"none": lambda y: y, "gelu": F.gelu}


@functools.cache
def compiled(function: Callable[..., Any], target: Target) -> Callable[..., Any]:
    """`function` by torch.compile, for each shape anew. In the interpreter's place nothing is generated: there only
    that it can be traced as one graph is shown."""
    backend = "eager" if target.kind == "interpreter" else "inductor"
    wrapped: Callable[..., Any] = torch.compile(function, dynamic=False, fullgraph=True, backend=backend)
    return wrapped


def why_not_compiled(sizes: Collection[str], M: int, target: Target) -> str | None:
    """Why a compiled peer is not timed in this case: compiling takes seconds, and time on a GPU is short."""
    if target.smallest or (COMPILED_SIZE in sizes and M in COMPILED_ROWS):
        return None
    return f"compiled peers are timed at the size {COMPILED_SIZE}, {' and '.join(map(str, COMPILED_ROWS))} rows, alone"


def why_not_int_mm(M: int, N: int, K: int, gpu: bool = True) -> str | None:
    """Why `torch._int_mm` does not take these sizes."""
    if not gpu:
        return "on a CPU torch._int_mm returns garbage where K or N is 1" if 1 in (N, K) else None
    if M <= 16:
        return f"torch._int_mm needs more than 16 rows, not {M}"
    if K % 8 or N % 8:
        return f"torch._int_mm needs multiples of 8, not {K} and {N}"
    return None


def eager_quantize_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    scale = x.float().abs().amax(dim=-1, keepdim=True).clamp_min(1e-12) / 127
    return torch.round(x / scale).clamp(-127, 127).to(torch.int8), scale.squeeze(-1)


def int_mm_linear(x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor, activation: str) -> Tensor:
    """torch._int_mm between torch's own operators. Its operands are contiguous and no dimension but M is 1: with other
    strides, or K = 1, it returns garbage on the CPU (torch 2.13)."""
    rows = x.float().abs().amax(dim=-1, keepdim=True) / 127
    acc = torch._int_mm(torch.round(x / rows).to(torch.int8), weight.t())
    return ACTIVATIONS[activation](acc * rows * scale + bias).to(x.dtype)


def linear(x: Tensor, weight: Tensor, bias: Tensor, activation: str) -> Tensor:
    return ACTIVATIONS[activation](F.linear(x, weight, bias))


def dynamic_linear(weight: Tensor, bias: Tensor) -> nn.Module:
    """torch's layer with an int8 weight and activations quantized in each call, by one scale (CPU)."""
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    with torch.no_grad(), warnings.catch_warnings():
        # It is deprecated in favour of torchao, and what is in torch without it.
        warnings.simplefilter("ignore")
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)
        dynamic = importlib.import_module("torch.ao.nn.quantized.dynamic").Linear
        layer.qconfig = importlib.import_module("torch.ao.quantization").default_dynamic_qconfig
        made: nn.Module = dynamic.from_float(layer)
    return made


def torchao_weight(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """torchao's weight for an int8 product with activations quantized by row; ImportError without torchao."""
    torchao = importlib.import_module("torchao.quantization")
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device=weight.device, dtype=dtype)
    with torch.no_grad():
        layer.weight.copy_(weight)
    torchao.quantize_(layer, torchao.Int8DynamicActivationInt8WeightConfig())
    return layer.weight


def fake_quantize_rows(x: Tensor) -> Tensor:
    """torch's fake-quantization with a scale for each row, in fp32, where its operators are exact. The gradient is
    straight-through. Zero points are floats, of integers torch would have the host wait for their range."""
    x = x.float()
    with torch.no_grad():
        scale = (x.abs().amax(dim=1) / 127).clamp_min(1e-12)
        zeros = torch.zeros(len(x), device=x.device)
    return torch.fake_quantize_per_channel_affine(x, scale, zeros, 0, -127, 127)


def fake_quantized_linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """A QAT layer of torch's operators: both operands fake-quantized, then a product in x's type."""
    return F.linear(fake_quantize_rows(x).to(x.dtype), fake_quantize_rows(weight).to(x.dtype), bias.to(x.dtype))
