"""Folders that an earlier release wrote still load, and give what they gave."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from sparseq import load, save, size_report
from sparseq.checkpoint import layer_names, verify
from sparseq.checkpoint.names import READABLE

DATA = Path(__file__).parents[1] / "data"
FOLDERS = sorted(path.parent for path in DATA.glob("format_*/*/config.json"))
IDS = torch.tensor([[2, 7, 9, 3, 0], [2, 11, 3, 0, 0]])


def test_every_older_format_has_its_folders() -> None:
    older = READABLE[:-1]
    assert {folder.parent.name for folder in FOLDERS} == {f"format_{version}" for version in older}


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: f"{folder.parent.name}/{folder.name}")
def test_loads(folder: Path, tmp_path: Path) -> None:
    verify(folder)
    wanted = torch.tensor(json.loads((folder / "logits.json").read_text()))
    model: Any = load(folder)
    assert bool(layer_names(folder)) == (folder.name != "plain")
    save(model, tmp_path)  # in the format of now
    again: Any = load(tmp_path)
    with torch.no_grad():
        first, second = model(IDS).logits, again(IDS).logits
    # The numbers were made on another machine, whose sums may be in another order.
    assert torch.allclose(first, wanted, rtol=1e-4, atol=1e-5)
    assert torch.allclose(second, first, rtol=1e-5, atol=1e-6)
    assert size_report(again).nonzero == size_report(model).nonzero


def test_learned_scales_have_their_new_names() -> None:
    state = load(DATA / "format_1" / "training").state_dict()
    assert not any(name.endswith("weight_scale") for name in state)
    assert sum(name.endswith("step_size") for name in state) == 8
