"""Small models to export, and what runtimes execute of a file."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

# What ONNX Runtime multiplies integers with.
INTEGER_PRODUCTS = ("MatMulInteger", "MatMulIntegerToFloat", "DynamicQuantizeMatMul", "QLinearMatMul", "QGemm")
FLOAT_PRODUCTS = ("MatMul", "FusedMatMul", "Gemm", "FusedGemm")


class Tagger(nn.Module):
    """Tokens [batch, length] -> scores [batch, length, 5] of each, and logits [batch, 3]: five linear layers, of which
    two get one input, and one gets a matrix."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(20, 16)
        self.up, self.gate = nn.Linear(16, 24), nn.Linear(16, 24)
        self.down, self.norm = nn.Linear(24, 16), nn.LayerNorm(16)
        self.head, self.pool = nn.Linear(16, 5, bias=False), nn.Linear(16, 3)

    def forward(self, tokens: Tensor, scale: Tensor) -> dict[str, Tensor]:
        x = self.embed(tokens)
        x = self.norm(x + self.down(torch.sigmoid(self.gate(x)) * self.up(x)))
        return {"scores": self.head(x), "logits": self.pool(x[:, 0]) * scale}


def tagger_inputs(rows: int, length: int, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(20, (rows, length), generator=generator)
    return {"tokens": tokens, "scale": torch.rand(rows, 1, generator=generator)}


def executed_by_onnx_runtime(path: Path, inputs: dict[str, Tensor], folder: Path) -> Counter[str]:
    """How many nodes of each kind ONNX Runtime executes in a call, by its profile."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.enable_profiling, options.profile_file_prefix = True, str(folder / "profile")
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    session.run(None, {name: tensor.numpy() for name, tensor in inputs.items()})
    events = json.loads(Path(session.end_profiling()).read_text())
    return Counter(one["args"]["op_name"] for one in events if one["name"].endswith("_kernel_time"))


def in_openvino(path: Path) -> Any:
    import openvino

    core = openvino.Core()
    return core.compile_model(core.read_model(str(path)), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})


def int8_products_in_openvino(compiled: Any) -> int:
    """How many products OpenVINO executes in int8, by its execution graph."""
    facts = [node.get_rt_info() for node in compiled.get_runtime_model().get_ops()]
    kinds = [(one["layerType"].astype(str), one["runtimePrecision"].astype(str)) for one in facts]
    return sum(kind in ("FullyConnected", "MatMul") and precision in ("i8", "u8") for kind, precision in kinds)
