"""Peers for whole models: those that are not installed are named, and those that are give the model's logits."""

import importlib

import pytest
import torch

from bench import runtimes
from bench.studies import model


@pytest.fixture
def plain():
    return model.random_models(small=True)["torch, fp32"]


def test_what_is_not_installed_is_said(plain, monkeypatch):
    def missing(name):
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(runtimes, "import_module", missing)
    found, absent = runtimes.peers(plain, [])
    assert set(found) == {"torch, quantize_dynamic"}
    assert absent["ONNX Runtime, int8"] == absent["OpenVINO, fp32"] == "onnx is not installed"


def test_those_that_are_here_give_the_models_logits(plain):
    batches = [model.make_batch({"plain": plain}, 2, 7, seed) for seed in range(4)]
    found, absent = runtimes.peers(plain, batches)
    with torch.inference_mode():
        right = plain(**batches[0]).logits
        for run in found.values():
            # Ranges that were taken from a few batches may be wide.
            torch.testing.assert_close(run(batches[0]), right, rtol=0.1, atol=0.05)
    for name, reason in absent.items():
        assert reason.endswith("is not installed"), name
        with pytest.raises(ImportError):
            importlib.import_module(reason.split()[0])
