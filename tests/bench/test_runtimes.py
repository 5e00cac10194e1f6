"""Peers for whole models: those that cannot run here are named, and those that can give the model's logits."""

import importlib
import shutil
from types import SimpleNamespace

import pytest
import torch
from transformers import DistilBertConfig, DistilBertForSequenceClassification

from bench import runtimes, whole_models, workloads
from bench.check import relative_error
from sparseq import InputError

TORCHS_OWN = {"torch, bf16", "torch, fp32 compiled", "torch, quantize_dynamic"}
COMPILED = ("torch, fp32 compiled", "torchao, int8 compiled")


@pytest.fixture
def plain():
    return whole_models.random_model(whole_models.SIZES["tiny"])


def batches(count):
    return [workloads.random_batch(100, 2, 7, seed) for seed in range(count)]


def test_what_is_not_installed_is_said(plain, monkeypatch):
    def missing(name):
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(runtimes, "import_module", missing)
    found, absent = runtimes.peers(plain, [])
    assert set(found) == TORCHS_OWN
    assert absent["ONNX Runtime, int8"] == absent["OpenVINO, bf16"] == "onnx is not installed"
    assert absent["torchao, int8 compiled"] == "torchao.quantization is not installed"


def test_only_those_that_are_wanted_are_set_up(plain):
    said = []
    found, absent = runtimes.peers(plain, [], wanted=lambda name: "bf16" in name and "torch" in name, say=said.append)
    assert [*found] == ["torch, bf16"] and not absent and said == ["setting up torch, bf16"]


def test_nothing_is_compiled_without_a_compiler(plain, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    _, absent = runtimes.peers(plain, [], wanted=lambda name: name == COMPILED[0])
    assert absent == {COMPILED[0]: "torch.compile needs a C++ compiler, and g++ was not found"}


class FakeCore:
    """OpenVINO on a processor with these capabilities; keeps the settings that models are compiled with."""

    def __init__(self, capabilities):
        self.capabilities, self.settings = capabilities, []

    def get_property(self, device, name):
        assert (device, name) == ("CPU", "OPTIMIZATION_CAPABILITIES")
        return self.capabilities

    def compile_model(self, model, device, settings):
        self.settings.append(settings)


@pytest.mark.parametrize("capabilities", [["FP32", "INT8"], ["FP32", "BF16", "INT8"]])
def test_openvino_runs_in_the_precision_that_its_name_says(monkeypatch, capabilities):
    # Where a processor has bf16, OpenVINO would take it for what is called fp32 too.
    core = FakeCore(capabilities)
    monkeypatch.setattr(runtimes, "import_module", lambda name: SimpleNamespace(Core=lambda: core))
    runtimes._openvino(None, "f32")
    runtimes._openvino(None)
    hints = [settings.get("INFERENCE_PRECISION_HINT") for settings in core.settings]
    assert hints == ["f32", None]
    if "BF16" in capabilities:
        runtimes._openvino(None, "bf16")
        assert core.settings[-1]["INFERENCE_PRECISION_HINT"] == "bf16"
    else:
        with pytest.raises(runtimes.AbsentError, match="no bf16 on this processor"):
            runtimes._openvino(None, "bf16")


# Relative errors of logits: static ranges that were taken from a few batches are wide.
LARGEST = {
    "fp32": 1e-4,
    "fp32 compiled": 1e-4,
    "bf16": 0.05,
    "quantize_dynamic": 0.05,
    "int8 compiled": 0.05,
    "int8": 0.3,
}


def same_logits(plain, names):
    """Runs the peers of these names that are here, on padded sentences; the names of those that are not."""
    held = workloads.of_sentences("", [[7, 9, 2, 41], [5, 3], [8, 8, 8]]).batches[0]
    found, absent = runtimes.peers(plain, batches(4), wanted=lambda name: name in names, say=lambda text: None)
    with torch.inference_mode():
        right = plain(**held).logits
        for name, run in found.items():
            logits = run(held)
            assert logits.dtype == torch.float32
            assert relative_error(logits, right) < LARGEST[name.partition(", ")[2]], name
    return absent


def test_those_that_are_here_give_the_models_logits(plain):
    everyone = {
        *TORCHS_OWN,
        *(f"{runtime}, {kind}" for runtime in ("ONNX Runtime", "OpenVINO") for kind in ("fp32", "int8")),
    }
    for name, reason in same_logits(plain, everyone - {*COMPILED}).items():
        assert reason.endswith("is not installed"), name
        with pytest.raises(ImportError):
            importlib.import_module(reason.split()[0])


@pytest.mark.slow
def test_compiled_ones_give_the_models_logits_and_are_compiled_anew(plain):
    absent = same_logits(plain, COMPILED)
    assert COMPILED[0] not in absent
    counters = torch._dynamo.utils.counters
    counters.clear()
    found, _ = runtimes.peers(plain, [], wanted=lambda name: name == COMPILED[0], say=lambda text: None)
    with torch.inference_mode():
        for tokens in (5, 6):
            runtimes.forget_compiled()
            found[COMPILED[0]](workloads.random_batch(100, 2, tokens))
    # Without forgetting, the second shape would have got code for any number of tokens.
    assert counters["stats"]["unique_graphs"] == 2


@pytest.mark.slow
@pytest.mark.parametrize("segments", [True, False], ids=["with segments", "without"])
def test_exported_models_run_whatever_they_read(segments):
    plain = whole_models.random_model(whole_models.SIZES["tiny"])
    if not segments:
        config = DistilBertConfig(vocab_size=100, dim=32, n_heads=2, n_layers=1, hidden_dim=64)
        plain = DistilBertForSequenceClassification(config).eval()
    found, absent = runtimes.peers(plain, batches(2), wanted=lambda name: name.startswith("exported"), say=str)
    assert [*found] == [runtimes.EXPORTED_INTEGER, runtimes.EXPORTED_QDQ] and not absent
    (batch,) = batches(1)
    with torch.inference_mode():
        expected = plain(**batch).logits
        for run in found.values():
            assert relative_error(run(batch), expected) < 0.2


def test_a_model_that_cannot_be_exported_is_left_out(plain, monkeypatch):
    def refuse(*unused):
        raise InputError("it cannot be exported")

    monkeypatch.setattr(runtimes.sparseq, "export_onnx", refuse)
    found, absent = runtimes.peers(plain, batches(1), wanted=lambda name: name.startswith("exported"), say=str)
    assert not found and set(absent.values()) == {"it cannot be exported"} and len(absent) == 2
