"""Which tensors, names and metadata a file can hold; others are refused before anything is written."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from file_tree import tree
from torch import nn

from sparseq import load, save
from sparseq.errors import InputError


def holding(tensor: Any, name: str = "odd") -> nn.Module:
    module = nn.Module()
    module.register_buffer("good", torch.ones(2))
    module.register_buffer(name, tensor)
    return module


REFUSED = {
    "float8_e4m3fn": (lambda: torch.ones(2).to(torch.float8_e4m3fn), "of dtype float8_e4m3fn, which a file"),
    "float8_e5m2": (lambda: torch.ones(2).to(torch.float8_e5m2), "of dtype float8_e5m2, which a file"),
    "complex128": (lambda: torch.ones(2, dtype=torch.complex128), "of dtype complex128, which a file"),
    "sparse": (lambda: torch.eye(2).to_sparse(), "only dense tensors"),
    "csr": (lambda: torch.eye(2).to_sparse_csr(), "only dense tensors"),
    "quantized": (lambda: torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8), "only dense tensors"),
    "nested": (lambda: torch.nested.nested_tensor([torch.ones(1), torch.ones(2)]), "only dense tensors"),
    "meta": (lambda: torch.ones(2, device="meta"), "is on the meta device"),
    "lazy": (lambda: nn.parameter.UninitializedBuffer(), "is not initialized yet"),
}


@pytest.mark.filterwarnings("ignore:.*(prototype|beta|deprecated)")
@pytest.mark.parametrize("kind", REFUSED)
def test_tensors_that_a_file_cannot_hold(kind: str, tmp_path: Path) -> None:
    make, message = REFUSED[kind]
    save(nn.Linear(2, 2), tmp_path)
    before = tree(tmp_path)
    with pytest.raises(InputError, match=rf"odd .*{message}") as caught:
        save(holding(make()), tmp_path)
    assert "\n" not in str(caught.value)
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    "tensor",
    [
        torch.arange(6.0).reshape(2, 3).t(),
        torch.arange(6.0)[::2],
        torch.arange(6.0).expand(3, 6),
        torch.tensor([1 + 2j, 3 - 4j]).conj(),
        torch._neg_view(torch.arange(3.0)),
        torch.tensor(3.0),
        torch.empty(0, 4),
        torch.tensor([True, False]),
        torch.tensor([0, 1, 65535], dtype=torch.uint16),
        torch.arange(3, dtype=torch.int64),
    ],
    ids=lambda tensor: f"{str(tensor.dtype)[6:]} {list(tensor.shape)}",
)
def test_tensors_of_every_other_kind(tensor: torch.Tensor, tmp_path: Path) -> None:
    save(holding(tensor), tmp_path)
    loaded = load(tmp_path, holding(torch.empty(tensor.shape, dtype=tensor.dtype))).odd
    assert loaded.dtype == tensor.dtype and loaded.tolist() == tensor.tolist()


@pytest.mark.parametrize("name", ["__metadata__", "\ud800", "x" * 2000])
def test_names_that_a_file_cannot_have(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="name"):
        save(holding(torch.ones(1), name), tmp_path)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["é", "a b", '"', "\\", "\n", "\x1b[31m", "\0", "x" * 1000, "__class__ "])
def test_names_with_odd_characters(name: str, tmp_path: Path) -> None:
    save(holding(torch.arange(3.0), name), tmp_path)
    assert torch.equal(load(tmp_path, holding(torch.ones(3), name)).state_dict()[name], torch.arange(3.0))


@pytest.mark.parametrize(
    "metadata", [{"sparseq": "{}"}, {"sha256": "0"}, {"format": "np"}, {"task": 3}, {3: "task"}, {"task": "\ud800"}]
)
def test_metadata_that_a_file_cannot_have(metadata: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="metadata"):
        save(nn.Linear(2, 2), tmp_path / "new", metadata=metadata)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "model", ["bert", nn.Linear, {"weight": torch.ones(2)}, 3], ids=lambda value: type(value).__name__
)
def test_what_is_no_model(model: Any, tmp_path: Path) -> None:
    save(nn.Linear(2, 2), tmp_path)
    before = tree(tmp_path)
    for call in (lambda: save(model, tmp_path), lambda: load(tmp_path, model)):
        with pytest.raises(TypeError, match=r"an nn\.Module, not") as caught:
            call()
        assert isinstance(caught.value, InputError) and "\n" not in str(caught.value)
    assert tree(tmp_path) == before
