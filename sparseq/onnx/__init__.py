"""ONNX files of quantized models: written by `export_onnx`, run by `OnnxModel`.

They need `pip install 'sparseq[onnx]'`; importing this package does not.
"""

from .export import export_onnx
from .replace import FORMS
from .runtime import OnnxModel, is_onnx

__all__ = ["FORMS", "OnnxModel", "export_onnx", "is_onnx"]
