"""Other ways to run a whole BERT classifier on a CPU, set up as their own guides say: peers of `studies.model`."""

import contextlib
import copy
import io
import logging
import shutil
import tempfile
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import sparseq
from bench.workloads import Batch
from sparseq.errors import InputError
from sparseq.onnx import OnnxModel

# Gives the logits of a batch, [sentences, labels], fp32.
Runner = Callable[[Batch], Tensor]
OPSET = 20
LONGEST = 512
CALIBRATION_ROWS = 64
OPENVINO_INT8 = "OpenVINO, int8"
# What `sparseq.export_onnx` writes of the packed model, in the runtime that a form is for.
EXPORTED_INTEGER, EXPORTED_QDQ = "exported `integer`, ONNX Runtime", "exported `qdq`, OpenVINO"
INSTALL = "pip install -r bench/runtimes.txt"


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


def peers(
    model: nn.Module,
    calibration: Sequence[Batch],
    wanted: Callable[[str], bool] = lambda name: True,
    say: Callable[[str], object] = print,
) -> tuple[dict[str, Runner], dict[str, str]]:
    """(the peers that can run the fp32 `model`, why the others cannot).

    calibration: batches that static ranges are taken on. wanted: of which names. What is compiled by torch is compiled
    in its first call, which may raise anything (see `forget_compiled`).
    """
    found: dict[str, Runner] = {}
    absent: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        exported = Path(folder) / "model.onnx"
        makers: dict[str, Callable[[], Runner]] = {
            "torch, bf16": lambda: _bf16(model),
            "torch, fp32 compiled": lambda: _compiled(model),
            "torch, quantize_dynamic": lambda: _quantize_dynamic(model),
            "torchao, int8 compiled": lambda: _torchao(model),
            "ONNX Runtime, fp32": lambda: _onnx_runtime(export_plain(model, exported)),
            "ONNX Runtime, int8": lambda: _onnx_runtime(_quantized_by_onnx_runtime(export_plain(model, exported))),
            "OpenVINO, fp32": lambda: _openvino(_read(export_plain(model, exported)), "f32"),
            "OpenVINO, bf16": lambda: _openvino(_read(export_plain(model, exported)), "bf16"),
            OPENVINO_INT8: lambda: _openvino(_quantized_by_nncf(_read(export_plain(model, exported)), calibration)),
            EXPORTED_INTEGER: lambda: _exported_integer(model, Path(folder) / "integer"),
            EXPORTED_QDQ: lambda: _exported_qdq(model, Path(folder) / "qdq", calibration),
        }
        for name, make in makers.items():
            if not wanted(name):
                continue
            say(f"setting up {name}")
            try:
                with quietly():
                    found[name] = make()
            except AbsentError as error:
                absent[name] = str(error)
    return found, absent


def forget_compiled() -> None:
    """Has the compiled peers compile anew in their next call.

    torch.compile generates code for the first shape that it sees, and general code, which is slower, for any shape once
    it has seen a second one. Each workload is to have the code that it would have alone.
    """
    torch._dynamo.reset()


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Without what exporters and compilers print, log and warn of."""
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


def _logits_of(model: Callable[..., Any]) -> Runner:
    return lambda batch: model(**batch).logits.float()


def _bf16(model: nn.Module) -> Runner:
    return _logits_of(copy.deepcopy(model).to(torch.bfloat16))


def _compiled(model: nn.Module, **options: Any) -> Runner:
    if not any(shutil.which(name) for name in torch._inductor.config.cpp.cxx if name):
        raise AbsentError("torch.compile needs a C++ compiler, and g++ was not found")
    return _logits_of(torch.compile(model, **options))


def _quantize_dynamic(model: nn.Module) -> Runner:
    return _logits_of(torch.ao.quantization.quantize_dynamic(copy.deepcopy(model), {nn.Linear}, dtype=torch.qint8))


def _torchao(model: nn.Module) -> Runner:
    """As in torchao's quick start: `quantize_`, then `torch.compile` with max-autotune. Without VNNI its products
    saturate with all 8 bits, and its own rule says so."""
    torchao = _module("torchao.quantization")
    reduced = _module("torchao.utils").should_reduce_range(torch.device("cpu"))
    # Otherwise the settings of inductor and of fp32 products would change for all of this process.
    config = torchao.Int8DynamicActivationInt8WeightConfig(set_inductor_config=False, reduce_range=reduced)
    quantized = copy.deepcopy(model)
    torchao.quantize_(quantized, config)
    return _compiled(quantized, mode="max-autotune")


def export_plain(model: nn.Module, path: Path) -> Path:
    """The model as ONNX, for any batch and length; once."""
    for name in ("onnx", "onnxscript"):
        _module(name)
    if not path.exists():
        # Two tensors: one that is given twice would become one input.
        ids, mask = torch.arange(16).view(2, 8), torch.ones(2, 8, dtype=torch.int64)
        sizes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length", max=LONGEST)}
        torch.onnx.export(
            _Logits(model).eval(),
            (ids, mask),
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


def _openvino(model: Any, precision: str | None = None) -> Runner:
    """precision: of what is not quantized; None for OpenVINO's own choice, which is bf16 on processors that have it."""
    openvino = _module("openvino")
    core = openvino.Core()
    if precision == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise AbsentError("OpenVINO has no bf16 on this processor")
    settings = {"INFERENCE_NUM_THREADS": torch.get_num_threads(), "PERFORMANCE_HINT": "LATENCY"}
    if precision is not None:
        settings["INFERENCE_PRECISION_HINT"] = precision
    compiled = core.compile_model(model, "CPU", settings)
    return lambda batch: torch.from_numpy(compiled(_arrays(batch))[0])


def _quantized_by_nncf(model: Any, batches: Sequence[Batch]) -> Any:
    nncf = _module("nncf")
    rows = [{name: tensor[:1].numpy() for name, tensor in batch.items()} for batch in batches[:CALIBRATION_ROWS]]
    return nncf.quantize(model, nncf.Dataset(rows), model_type=nncf.ModelType.TRANSFORMER)


def _exported(model: nn.Module, path: Path, form: str) -> Path:
    """Raises AbsentError for a model that `export_onnx` refuses, and without what it needs."""
    try:
        return sparseq.export_onnx(sparseq.pack(model), path, form)
    except InputError as error:
        raise AbsentError(str(error)) from error


def _fed(batch: Batch, names: Collection[str]) -> Batch:
    """What an exported model reads of a batch: all inputs of these names, also those that have defaults in torch."""
    whole = {"token_type_ids": torch.zeros_like(batch["input_ids"]), **batch}
    return {name: whole[name] for name in names}


def _exported_integer(model: nn.Module, folder: Path) -> Runner:
    _module("onnxruntime")
    exported = OnnxModel(_exported(sparseq.convert(copy.deepcopy(model)), folder / "model.onnx", "integer"))

    def run(batch: Batch) -> Tensor:
        logits: Tensor = exported(**_fed(batch, exported.input_names)).logits
        return logits

    return run


def _exported_qdq(model: nn.Module, folder: Path, batches: Sequence[Batch]) -> Runner:
    _module("openvino")
    static = sparseq.calibrate(sparseq.convert(copy.deepcopy(model), activation="static"), batches[:CALIBRATION_ROWS])
    read = _read(_exported(static, folder / "model.onnx", "qdq"))
    names = [one.any_name for one in read.inputs]
    run = _openvino(read)
    return lambda batch: run(_fed(batch, names))
