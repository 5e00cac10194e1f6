"""`export_onnx`: a quantized model as an ONNX file of integer products."""

import contextlib
import logging
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sparseq.errors import InputError
from sparseq.nn.inference_mode import outside_inference_mode
from sparseq.reading import brief
from sparseq.version import __version__

from .files import check_path, files_beside, write_model
from .packages import EXTRA, needed
from .ranges import static_scales
from .replace import FORMS, packed_copy, quantized_linears, replaced
from .signature import Named, check_inputs, dynamic_axes, example_inputs, outputs_of

OPSET = 20
# A protobuf message, which an ONNX file is, has less than 2 GiB; nodes and names take some of it.
LARGEST = 2**31 - 2**24


@outside_inference_mode
def export_onnx(
    model: nn.Module,
    path: str | Path,
    form: str = "integer",
    *,
    inputs: Mapping[str, Tensor] | None = None,
    batches: Iterable[Mapping[str, Any]] | None = None,
    tokenizer: Any = None,
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """Writes a quantized model as an ONNX file (opset 20), and returns the file's path.

    Every linear layer of sparseq's is a product of int8 matrices, with the weight [in_features, out_features] in int8
    whatever its bits and mask: pruned weights are zeros in it, and 4-bit ones take a byte. Embeddings are tables of
    integers. All else is in fp32. `model` is not changed.

    Args:
        model: with training layers, which are packed first, or packed. In fp32, on any device.
        path: a file that ends in .onnx. A transformers model's config.json and the tokenizer are written beside it.
        form: "integer" computes as sparseq does: MatMulInteger, with a scale for each row of activations (a static one
            where the layer has one). "qdq" stores pairs of QuantizeLinear and DequantizeLinear, with one scale for all
            activations of a layer, which other runtimes fuse to integer products.
        inputs: an example of forward's arguments, tensors by name, at least 2 in each axis that may have any size: the
            batch (axis 0), and axis 1 of integers. The default is for models of transformers that read tokens.
        batches: with "qdq", arguments of forward from which layers with dynamic activations get a static scale, by the
            largest magnitude of all. Without them such layers are refused.
        tokenizer: is saved beside the file.
        metadata: texts that the file is to hold, too. Its own are sparseq.version, sparseq.form and
            sparseq.integer_products.

    The inputs of the file have the names of forward's arguments; outputs those of the result's fields (`logits`).

    Raises InputError before anything is written: for another form or path, for a model that cannot be exported (layers
    of 16 bits, half precision, forward hooks on layers, an operation that ONNX does not have, more than 2 GB), for
    files of another model in the folder, and if onnx and onnxscript are not installed. Raises MachineError if the file
    cannot be written. The file appears completely or not at all, after onnx's checker has accepted it.
    """
    path = check_path(Path(path))
    if form not in FORMS:
        raise InputError(f"form is {form!r}: it must be one of {', '.join(map(repr, FORMS))}")
    if form == "integer" and batches is not None:
        raise InputError("batches are for form 'qdq': the form 'integer' needs none")
    for name in ("onnx", "onnxscript"):
        needed(name, "export_onnx")
    if not hasattr(torch.onnx, "ops") or not hasattr(torch.onnx.ops, "symbolic"):
        raise InputError(f"export_onnx needs torch 2.8 or newer, and this is {torch.__version__}: {EXTRA}")
    packed = packed_copy(model)
    texts = _metadata(metadata or {}, form, packed)
    beside = files_beside(path, packed, tokenizer)
    example = dict(example_inputs(packed) if inputs is None else inputs)
    check_inputs(example)
    scales = static_scales(packed, batches) if form == "qdq" else {}
    graph = _traced(packed, replaced(packed, form, scales), example)
    return write_model(graph, path, texts, beside)


def _metadata(given: Mapping[str, str], form: str, packed: nn.Module) -> dict[str, str]:
    """The file's texts, by name. Raises InputError if its own are among those that are given."""
    products = str(len(quantized_linears(packed)))
    own = {"sparseq.version": __version__, "sparseq.form": form, "sparseq.integer_products": products}
    if taken := own.keys() & given.keys():
        raise InputError(f"metadata has an entry {min(taken)!r}, which is the file's own")
    return {**given, **own}


def _traced(packed: nn.Module, exported: nn.Module, example: Mapping[str, Tensor]) -> Any:
    """The graph of `exported` as an onnx.ModelProto. packed: the same model, which can compute."""
    size = sum(tensor.nbytes for tensor in [*exported.parameters(), *exported.buffers()])
    if size > LARGEST:
        raise InputError(f"the model has {size / 1e9:.1f} GB of tensors, and an ONNX file holds 2.1 GB at most")
    names = tuple(example)
    with torch.no_grad():
        outputs = tuple(outputs_of(packed(**example)))
    try:
        with _quietly():
            program = torch.onnx.export(
                Named(exported, names).eval(),
                tuple(example.values()),
                dynamo=True,
                input_names=list(names),
                output_names=list(outputs),
                dynamic_shapes=(tuple(dynamic_axes(tensor) for tensor in example.values()),),
                opset_version=OPSET,
                external_data=False,
                verbose=False,
            )
    except Exception as error:  # whatever the tracer raises, the model is the cause
        why = brief(error.__cause__ or error)
        raise InputError(f"torch.onnx cannot export a {type(packed).__name__} ({why})") from error
    assert program is not None
    graph = program.model_proto
    _unshare_zero_points(graph.graph)
    _forget_origins(graph)
    return graph


def _forget_origins(graph: Any) -> None:
    """Removes what the exporter notes of each node: stack traces with paths of this machine, many times the size of the
    graph."""
    parts = graph.graph
    for noted in (graph, parts, *parts.node, *parts.initializer, *parts.value_info, *parts.input, *parts.output):
        noted.ClearField("metadata_props")
        noted.ClearField("doc_string")


def _unshare_zero_points(graph: Any) -> None:
    """Gives each weight zero points of its own. The exporter stores equal ones once, and with session.x64quantprecision
    = 1 ONNX Runtime 1.32 does not load a file that shares them."""
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    shared = set()
    for node in graph.node:
        if node.op_type == "DequantizeLinear" and tensors[node.input[2]].dims:
            shared.add(node.input[2])
            own = graph.initializer.add()
            own.CopyFrom(tensors[node.input[2]])
            own.name = node.input[2] = f"{node.input[0]}_zero_points"
    kept = [tensor for tensor in graph.initializer if tensor.name not in shared]
    del graph.initializer[:]
    graph.initializer.extend(kept)


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Without what the exporter warns of and logs: what matters of it is raised."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
