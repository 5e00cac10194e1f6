"""Other ways to run a whole BERT classifier on a CPU, set up as their own guides say: peers of `studies.model`."""

import contextlib
import copy
import io
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

Batch = Mapping[str, Tensor]
# Gives the logits of a batch.
Runner = Callable[[Batch], Any]
OPSET = 20
LONGEST = 512
CALIBRATION_ROWS = 64


class AbsentError(Exception):
    """Why a peer cannot run here."""


class _Logits(nn.Module):
    """A classifier as what exporters take: tensors in, logits out."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        logits: Tensor = self.model(input_ids=input_ids, attention_mask=attention_mask).logits
        return logits


def peers(model: nn.Module, batches: list[Batch]) -> tuple[dict[str, Runner], dict[str, str]]:
    """(the peers that can run the fp32 `model`, why the others cannot). batches: to calibrate static ranges on."""
    found: dict[str, Runner] = {}
    absent: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        exported = Path(folder) / "model.onnx"
        makers: dict[str, Callable[[], Runner]] = {
            "torch, quantize_dynamic": lambda: _quantize_dynamic(model),
            "ONNX Runtime, fp32": lambda: _onnx_runtime(_export(model, exported)),
            "ONNX Runtime, int8": lambda: _onnx_runtime(_quantized_by_onnx_runtime(_export(model, exported))),
            "OpenVINO, fp32": lambda: _openvino(_read(_export(model, exported))),
            "OpenVINO, int8": lambda: _openvino(_quantized_by_nncf(_read(_export(model, exported)), batches)),
        }
        for name, make in makers.items():
            print(f"setting up {name}", flush=True)
            try:
                with _quietly():
                    found[name] = make()
            except AbsentError as error:
                absent[name] = str(error)
    return found, absent


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _module(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise AbsentError(f"{error.name or name} is not installed") from None


def _quantize_dynamic(model: nn.Module) -> Runner:
    quantized = torch.ao.quantization.quantize_dynamic(copy.deepcopy(model), {nn.Linear}, dtype=torch.qint8)
    return lambda batch: quantized(**batch).logits


def _export(model: nn.Module, path: Path) -> Path:
    """The model as ONNX, for any batch and length; once."""
    for name in ("onnx", "onnxscript"):
        _module(name)
    if not path.exists():
        example = torch.ones(2, 8, dtype=torch.int64)
        sizes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length", max=LONGEST)}
        torch.onnx.export(
            _Logits(model).eval(),
            (example, example),
            str(path),
            dynamo=True,
            input_names=["input_ids", "attention_mask"],
            dynamic_shapes=(sizes, sizes),
            opset_version=OPSET,
            external_data=False,
            verbose=False,
        )
    return path


def _arrays(batch: Batch) -> dict[str, Any]:
    return {name: tensor.numpy() for name, tensor in batch.items()}


def _onnx_runtime(path: Path) -> Runner:
    runtime = _module("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda batch: torch.from_numpy(session.run(None, _arrays(batch))[0])


def _quantized_by_onnx_runtime(path: Path) -> Path:
    quantization = _module("onnxruntime.quantization")
    quantized = path.with_name("int8.onnx")
    quantization.quantize_dynamic(str(path), str(quantized), weight_type=quantization.QuantType.QInt8)
    return quantized


def _read(path: Path) -> Any:
    return _module("openvino").Core().read_model(str(path))


def _openvino(model: Any) -> Runner:
    settings = {"INFERENCE_NUM_THREADS": torch.get_num_threads(), "PERFORMANCE_HINT": "LATENCY"}
    compiled = _module("openvino").Core().compile_model(model, "CPU", settings)
    return lambda batch: torch.from_numpy(compiled(_arrays(batch))[0])


def _quantized_by_nncf(model: Any, batches: list[Batch]) -> Any:
    nncf = _module("nncf")
    rows = [{name: tensor[:1].numpy() for name, tensor in batch.items()} for batch in batches[:CALIBRATION_ROWS]]
    return nncf.quantize(model, nncf.Dataset(rows), model_type=nncf.ModelType.TRANSFORMER)
