"""The models that `studies.model` times: a checkpoint's own, random or of a folder, and what sparseq makes of it."""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

import sparseq
from bench.kernels.cases import OURS
from sparseq.checkpoint import is_saved
from sparseq.errors import InputError
from sparseq.nn import Packed, named_layers, use_fused_encoder
from sparseq_kernels.cpu.encoder import why_no_bf16_attention

BASELINE = "torch, fp32"
DENSE = f"{OURS} int8"
LAYERED = f"{DENSE}, layer by layer"
BF16_ATTENTION = f"{DENSE}, attention in bf16"
SAME = (LAYERED, DENSE, BF16_ATTENTION)  # what computes as the baseline does, but for quantization
SPARSITIES, PATTERN = (0.5, 0.8, 0.9), "4x4"
# Architectures whose first token has the position after the padding token's number.
_POSITIONS_AFTER_PADDING = ("roberta", "xlm-roberta", "camembert", "mpnet")
Wanted = Callable[[str], bool]


@dataclass(frozen=True)
class Size:
    """An architecture. name: as in tables."""

    name: str
    layers: int
    hidden: int
    heads: int
    feed_forward: int
    vocabulary: int = 30522


SIZES = {
    "minilm": Size("MiniLM-L6", 6, 384, 12, 1536),
    "base": Size("BERT-base", 12, 768, 12, 3072),
    "tiny": Size("tiny", 1, 32, 2, 64, vocabulary=100),
}


def sparse_name(share: float) -> str:
    """The candidate from which that share of the blocks was removed."""
    return f"{DENSE}, {share:.0%} of {PATTERN} blocks removed"


def random_model(size: Size) -> nn.Module:
    """A BERT classifier with random weights."""
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    config = BertConfig(
        num_hidden_layers=size.layers,
        hidden_size=size.hidden,
        num_attention_heads=size.heads,
        intermediate_size=size.feed_forward,
        vocab_size=size.vocabulary,
    )
    return BertForSequenceClassification(config).eval()


def packed_models(plain: nn.Module, wanted: Wanted, sparse: bool = True) -> dict[str, nn.Module]:
    """The model packed to int8, layer by layer and fused, where the processor can also with attention in bf16, and with
    `sparse` without most 4x4 blocks: those of wanted names. Nothing is trained: sparse ones have the time of trained
    ones, and not their scores."""

    def packed(**settings: Any) -> nn.Module:
        return sparseq.pack(sparseq.convert(copy.deepcopy(plain), **settings))

    makers: dict[str, Callable[[], nn.Module]] = {
        LAYERED: lambda: use_fused_encoder(packed(), False),
        DENSE: packed,
    }
    if why_no_bf16_attention() is None:
        makers[BF16_ATTENTION] = lambda: use_fused_encoder(packed(), bf16_attention=True)
    for share in SPARSITIES if sparse else ():
        makers[sparse_name(share)] = lambda share=share: packed(sparsity=share, pattern=PATTERN)  # type: ignore[misc]
    return {name: make() for name, make in makers.items() if wanted(name)}


def folder_models(folders: Sequence[Path]) -> dict[str, nn.Module]:
    """The models of folders, by the folder's name: what `sparseq.save` wrote, or any transformers classifier."""
    from transformers import AutoModelForSequenceClassification

    models: dict[str, nn.Module] = {}
    for folder in folders:
        if not folder.is_dir():
            raise InputError(f"there is no folder {folder}: give the folders of models to time")
        name = folder.name if folder.name not in models else str(folder)
        if is_saved(folder):
            models[name] = sparseq.load(folder)
            continue
        try:
            models[name] = AutoModelForSequenceClassification.from_pretrained(folder, local_files_only=True).eval()
        except (OSError, ValueError) as error:
            raise InputError(f"{folder} holds no classifier: {str(error).splitlines()[0]}") from error
    return models


def packed_layers(model: nn.Module) -> int:
    """How many layers are packed."""
    return sum(isinstance(layer, Packed) for _, layer in named_layers(model))


def described(models: Mapping[str, nn.Module]) -> dict[str, dict[str, int]]:
    """Of each model, for a result file: parameters, stored bytes, packed layers."""
    reports = {name: sparseq.size_report(model) for name, model in models.items()}
    return {
        name: {
            "parameters": report.parameters,
            "stored_bytes": report.stored_bytes,
            "packed_layers": packed_layers(models[name]),
        }
        for name, report in reports.items()
    }


def vocabulary(models: Mapping[str, nn.Module]) -> int:
    """Token ids below this are known to all of the models."""
    return min(int(model.config.vocab_size) for model in models.values())  # type: ignore[union-attr, arg-type]


def longest(models: Mapping[str, nn.Module]) -> int:
    """The most tokens that all of the models take."""

    def of(config: Any) -> int:
        before = config.pad_token_id + 1 if config.model_type in _POSITIONS_AFTER_PADDING else 0
        return int(config.max_position_embeddings) - before

    return min(of(model.config) for model in models.values())
