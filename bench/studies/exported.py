"""What `export_onnx` makes of MiniLM-L6: MB, products of integers that runtimes execute, and how far logits differ from
those of the fused packed model, beside how far its own layers' do.

    python -m bench.studies.exported [--smallest] [--out DIR]

The weights are random: sizes and products do not depend on them. It needs onnx, onnxscript, onnxruntime and openvino.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench.common import arguments, finish
from bench.executed import INTEGER_PRODUCTS, compiled_by_openvino, in_onnx_runtime, int8_products
from bench.program import run_program
from bench.runtimes import export_plain, quietly
from bench.whole_models import SIZES, random_model
from bench.workloads import random_batch
from sparseq import calibrate, convert, export_onnx, pack
from sparseq.nn import PackedLinear, use_fused_encoder
from sparseq.onnx import FORMS, OnnxModel
from sparseq.size import size_report

PATTERN = "4x4"
MODELS: dict[str, dict[str, Any]] = {
    "int8": {},
    "int8, 60 %": {"sparsity": 0.6, "pattern": PATTERN},
    "int4": {"bits": 4},
}
ROWS, TOKENS = 8, 32


def inputs(vocabulary: int, seed: int = 0) -> dict[str, Tensor]:
    batch = dict(random_batch(vocabulary, ROWS, TOKENS, seed))
    return {**batch, "token_type_ids": torch.zeros_like(batch["input_ids"])}


def packed_model(size: str, form: str, settings: dict[str, Any]) -> nn.Module:
    """Static for pairs, which need it, and dynamic otherwise."""
    activation = "static" if form == "qdq" else "dynamic"
    model = convert(random_model(SIZES[size]), activation=activation, **settings)
    return pack(calibrate(model, [inputs(SIZES[size].vocabulary, seed) for seed in range(1, 3)]))


def difference(found: Tensor, expected: Tensor) -> str:
    """The largest difference of logits over the largest logit."""
    return f"{float((found - expected).abs().max() / expected.abs().max()):.0e}"


def row(size: str, name: str, form: str, folder: Path) -> dict[str, Any]:
    model, batch = packed_model(size, form, MODELS[name]), inputs(SIZES[size].vocabulary)
    path = export_onnx(model, folder / f"{form}.onnx", form)
    layers = sum(isinstance(layer, PackedLinear) for layer in model.modules())
    ran, compiled = in_onnx_runtime(path, batch), compiled_by_openvino(path)
    with torch.inference_mode():
        expected = model(**batch).logits
        layered = use_fused_encoder(model, False)(**batch).logits
    logits = torch.from_numpy(compiled({key: tensor.numpy() for key, tensor in batch.items()})[0])
    found = {
        "linear_layers": layers,
        "onnx_runtime": sum(ran[kind] for kind in INTEGER_PRODUCTS),
        "openvino": int8_products(compiled),
        "onnx_bytes": path.stat().st_size,
        "stored_bytes": size_report(model).stored_bytes,
    }
    cells = {
        "model": name,
        "form": f"`{form}`",
        "`model.safetensors`, MB": f"{found['stored_bytes'] / 1e6:.2f}",
        "`model.onnx`, MB": f"{found['onnx_bytes'] / 1e6:.2f}",
        "ONNX Runtime, integer products": f"{found['onnx_runtime']} of {layers}",
        "OpenVINO, int8 products": f"{found['openvino']} of {layers}",
        "logits: ONNX Runtime": difference(OnnxModel(path)(**batch).logits, expected),
        "OpenVINO": difference(logits, expected),
        "sparseq, layer by layer": difference(layered, expected),
    }
    return {"case": {"model": name, "form": form}, **found, "cells": cells}


def main(argv: Sequence[str] | None = None) -> int:
    given = arguments("MB and integer products of exported models.", 1, argv)
    size = "tiny" if given.smallest else "minilm"
    rows = []
    with tempfile.TemporaryDirectory() as made:
        with quietly():
            plain = export_plain(random_model(SIZES[size]), Path(made) / "plain.onnx").stat().st_size
        for name in [*MODELS][: 1 if given.smallest else None]:
            for form in FORMS:
                folder = Path(made) / f"{form} of {name}"
                rows.append(row(size, name, form, folder))
                print("  ".join(rows[-1]["cells"].values()), flush=True)
    settings = {"size": size, "rows": ROWS, "tokens": TOKENS, "fp32 model.onnx, bytes": plain}
    print(f"fp32: {plain / 1e6:.2f} MB")
    finish("exported", rows, settings, given)
    return 0


if __name__ == "__main__":
    run_program(main)
