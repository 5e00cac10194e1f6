"""Models to save, and what must be the same after loading."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sparseq.checkpoint import CONFIG
from sparseq.nn import calibrate, convert, pack

IDS = torch.tensor([[2, 7, 9, 3, 0], [2, 11, 3, 0, 0]])

MASK = (IDS != 0).long()


def model(family: str = "Bert", head: str = "ForSequenceClassification", **changes: Any) -> Any:
    import transformers

    torch.manual_seed(0)
    settings = {"vocab_size": 40, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    settings |= {"intermediate_size": 64, "max_position_embeddings": 64, "pad_token_id": 0}
    if family == "DistilBert":
        settings |= {"dim": settings.pop("hidden_size"), "hidden_dim": settings.pop("intermediate_size")}
        settings |= {"n_layers": settings.pop("num_hidden_layers"), "n_heads": settings.pop("num_attention_heads")}
    config = getattr(transformers, f"{family}Config")(**{**settings, **changes})
    return getattr(transformers, f"{family}{head}")(config).eval()


def static(plain: nn.Module, **settings: Any) -> nn.Module:
    return calibrate(convert(plain, activation="static", **settings), [{"input_ids": IDS}])


VERSIONS: dict[str, Callable[[], Any]] = {
    "training": lambda: convert(model(), sparsity=0.5),
    "training, learned and static": lambda: static(model(), scale="lsq", sparsity=0.5, pattern="4x4"),
    "training, embeddings pruned": lambda: convert(model(), sparsity=0.5, prune_embeddings=True),
    "training, one layer": lambda: convert(model(), include=("*.0.attention.self.query",)),
    "training, bf16": lambda: convert(model().bfloat16(), sparsity=0.5),
    "training, tied": lambda: convert(model(head="ForMaskedLM"), sparsity=0.5),
    "training, encoder alone": lambda: convert(model(head="Model"), sparsity=0.5),
    "packed": lambda: pack(convert(model())),
    "packed 60 %": lambda: pack(convert(model(), sparsity=0.6)),
    "packed 4x4": lambda: pack(convert(model(), sparsity=0.6, pattern="4x4")),
    "packed int4 2:4": lambda: pack(convert(model(), bits=4, sparsity=0.5, pattern="2:4", prune_embeddings=True)),
    "packed int16": lambda: pack(convert(model(), bits=16)),
    "packed, pruned only": lambda: pack(convert(model(), bits=None, sparsity=0.6)),
    "packed static": lambda: pack(static(model())),
    "packed, one layer": lambda: pack(convert(model(), include=("*.0.attention.self.query",))),
    "packed bf16": lambda: pack(convert(model().bfloat16(), sparsity=0.6)),
    "packed, tied": lambda: pack(convert(model(head="ForMaskedLM"))),
    "packed, encoder alone": lambda: pack(convert(model(head="Model"))),
    "packed DistilBert": lambda: pack(convert(model("DistilBert"))),
    "packed Roberta": lambda: pack(convert(model("Roberta"))),
}

HEADS = {"Model": "AutoModel", "ForMaskedLM": "AutoModelForMaskedLM"}


def auto_class(folder: Path) -> Any:
    """The Auto class of the folder's own architecture."""
    import transformers

    (architecture,) = json.loads((folder / CONFIG).read_text())["architectures"]
    head = next((auto for suffix, auto in HEADS.items() if architecture.endswith(suffix)), None)
    return getattr(transformers, head or "AutoModelForSequenceClassification")


def output(loaded: Any) -> torch.Tensor:
    with torch.no_grad():
        return loaded(IDS, attention_mask=MASK)[0].float()


def assert_same(found: nn.Module, expected: nn.Module) -> None:
    """The same tensors, bit for bit, under the same names, tied and trained alike."""
    assert type(found) is type(expected) and not any(module.training for module in found.modules())
    for these, those in (
        (found.named_parameters(remove_duplicate=False), expected.named_parameters(remove_duplicate=False)),
        (found.named_buffers(remove_duplicate=False), expected.named_buffers(remove_duplicate=False)),
    ):
        mine, theirs = dict(these), dict(those)
        assert list(mine) == list(theirs)
        for name, tensor in mine.items():
            assert tensor.dtype == theirs[name].dtype and torch.equal(tensor, theirs[name]), name
            assert tensor.requires_grad == theirs[name].requires_grad, name
        ties = [[name for name in all_ if all_[name] is tensor] for all_ in (mine, theirs) for tensor in all_.values()]
        assert ties[: len(mine)] == ties[len(mine) :]
