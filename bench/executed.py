"""What ONNX Runtime and OpenVINO execute of an ONNX file, by their own account."""

import json
import tempfile
from collections import Counter
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from torch import Tensor

# What ONNX Runtime multiplies integers with, and floats.
INTEGER_PRODUCTS = ("MatMulInteger", "MatMulIntegerToFloat", "DynamicQuantizeMatMul", "QLinearMatMul", "QGemm")
FLOAT_PRODUCTS = ("MatMul", "FusedMatMul", "Gemm", "FusedGemm")


def in_onnx_runtime(path: Path, inputs: Mapping[str, Tensor]) -> Counter[str]:
    """How many nodes of each kind a call executes, by the profile of it."""
    runtime = import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    with tempfile.TemporaryDirectory() as folder:
        options.enable_profiling, options.profile_file_prefix = True, str(Path(folder) / "profile")
        session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        session.run(None, {name: tensor.numpy() for name, tensor in inputs.items()})
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    return Counter(one["args"]["op_name"] for one in events if one["name"].endswith("_kernel_time"))


def compiled_by_openvino(path: Path) -> Any:
    """The file compiled for the CPU, fp32 where nothing is quantized."""
    core = import_module("openvino").Core()
    return core.compile_model(core.read_model(str(path)), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})


def int8_products(compiled: Any) -> int:
    """How many products OpenVINO executes in int8, by its execution graph."""
    facts = [node.get_rt_info() for node in compiled.get_runtime_model().get_ops()]
    kinds = [(one["layerType"].astype(str), one["runtimePrecision"].astype(str)) for one in facts]
    return sum(kind in ("FullyConnected", "MatMul") and precision in ("i8", "u8") for kind, precision in kinds)
