"""The studies of layers, models and training runs, each at its smallest."""

from unittest import mock

import pytest
import torch

from bench import common, render
from bench.check import WrongResultError
from bench.studies import demo_seeds, formats, model, qat_step, stages
<<<<<<< HEAD
from sparseq import backend, instruction_set
=======
from sparseq import InputError, backend, convert, instruction_set, pack, save
from sparseq.nn import linear
from sparseq_kernels import qat_linear
>>>>>>> qkv
from sparseq_kernels.cpu import native
from sparseq_kernels.instruction_sets import SETS


def test_seeds_are_summed_up_in_points():
    rows = [
        {"scores": {"plain": plain, "compressed": compressed}, "lost": plain - compressed}
        for plain, compressed in ((0.80, 0.79), (0.82, 0.83))
    ]
    line = demo_seeds.summary("fp32", rows)
    assert list(line["cells"].values()) == ["fp32, mean ± spread", "81.0 ± 1.4", "81.0 ± 2.8", "0.0 ± 1.4", ""]


def test_qat_step_keeps_less_for_the_backward(tmp_path):
    assert qat_step.main(["--smallest", "--out", str(tmp_path)]) == 0
    [result] = common.read_results("qat_step", tmp_path)
    assert [row["case"]["step"] for row in result["rows"]] == ["forward + backward", "with AdamW"] * 2
    assert [row["case"].get("model") for row in result["rows"]] == [None, None, "MiniLM-L6", "MiniLM-L6"]
    assert {r["of"] for r in result["rows"][0]["ratios"]} == {qat_step.QAT, qat_step.MASKED}
    assert {"cpu", "cores", "threads", "flags", "system"} <= set(result["machine"])
    blocks = qat_step.make_blocks(0.0)
    hidden = torch.randn(8, 64, qat_step.HIDDEN, requires_grad=True)
    saved = {name: qat_step.saved_bytes(block, hidden) for name, block in blocks.items()}
    assert saved[qat_step.QAT] < saved["fp32"] and saved[qat_step.QAT] == saved[qat_step.MASKED]
    # The integers of x once, and not for query, key and value each.
    with mock.patch.object(linear, "shared_qat_linear", qat_linear):
        alone = qat_step.saved_bytes(blocks[qat_step.QAT], hidden)
    assert alone - saved[qat_step.QAT] == 2 * (hidden.numel() + 4 * hidden.shape[:-1].numel())


def test_qat_step_refuses_a_wrong_layer():
    blocks = qat_step.make_blocks(0.0)
    block = blocks[qat_step.QAT]
    hidden, grad = torch.randn(2, 4, 384, requires_grad=True), torch.randn(2, 4, 384)
    qat_step.check("QAT", block, hidden, grad)
    layer = block.layer[0].output.dense
    layer.register_forward_hook(lambda module, inputs, out: out * 1.5 if backend() != "reference" else out)
    with pytest.raises(WrongResultError):
        qat_step.check("QAT", block, hidden, grad)


def test_smallest_writes_nothing_by_itself(monkeypatch, tmp_path):
    monkeypatch.setattr(common, "RESULTS", tmp_path)
    assert model.main(["--smallest"]) == 0
    assert not list(tmp_path.iterdir())


def test_formats_are_counted_and_rendered(tmp_path):
    assert formats.main(["--smallest", "--out", str(tmp_path)]) == 0
    [result] = common.read_results("formats", tmp_path)
    found = {row["case"]["pattern"]: row["cells"]["50% kept"] for row in result["rows"]}
    assert found["unstructured"] == "5.00 bitmask" and found["2:4"] == "5.00 semi_structured"
    assert found["64x64"].endswith("block_sparse") and "5.00 bitmask" in render.render("formats", tmp_path)


@pytest.mark.skipif(native.why_not() is not None, reason="there is no native code here")
def test_stages_add_up(tmp_path):
    before, sets = instruction_set(), list(SETS)
    assert stages.main(["--smallest", "--out", str(tmp_path)]) == 0
    [result] = common.read_results("stages", tmp_path)
    assert instruction_set() == before and list(SETS) == sets
    for row in result["rows"]:
        seconds = row["seconds"]
        assert all(seconds[name] > 0 and row["floors"][name] > 0 for name in stages.STAGES)
        assert sum(seconds[name] for name in (*stages.STAGES, "rest")) == pytest.approx(seconds["all"])
