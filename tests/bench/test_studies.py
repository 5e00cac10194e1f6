"""The studies of layers, models and training runs, each at its smallest."""

import contextlib
from unittest import mock

import pytest
import torch

from bench import common, render
from bench.check import WrongResultError
from bench.studies import agreement, blocks, demo_seeds, exported, formats, model, qat_step, shapes, stages
from sparseq import InputError, backend, instruction_set
from sparseq.nn import linear
from sparseq.tasks import Task
from sparseq.timing import Comparison
from sparseq.train import Recipe, compress
from sparseq.train.progress import Reporter
from sparseq_kernels import qat_linear
from sparseq_kernels.cpu import native
from sparseq_kernels.instruction_sets import SETS

QUIET = Reporter(silent=True)


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


@pytest.mark.slow
def test_exported_files_are_counted_and_rendered(tmp_path):
    assert exported.main(["--smallest", "--out", str(tmp_path)]) == 0
    [result] = common.read_results("exported", tmp_path)
    counts = {row["case"]["form"]: (row["onnx_runtime"], row["openvino"]) for row in result["rows"]}
    assert counts == {"integer": (8, 0), "qdq": (8, 8)}
    assert "8 of 8" in render.render("exported", tmp_path)


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


def test_shapes_are_compared_with_the_better_of_the_others(tmp_path):
    assert shapes.main(["--smallest", "--out", str(tmp_path)]) == 0
    [result] = common.read_results("shapes", tmp_path)
    for row in result["rows"]:
        others = {name: row["seconds"][name]["median"] for name in (shapes.LINEAR, shapes.PRODUCT)}
        assert row["better"] == min(others, key=others.get)
    assert "2 shapes: the median ratio is" in render.render("shapes", tmp_path)


def test_the_worst_shapes_are_shown_first():
    def row(M, ours, linear, product):
        times = {shapes.OURS: (ours,), shapes.LINEAR: (linear,), shapes.PRODUCT: (product,)}
        return shapes.row(M, 8, 8, Comparison(times))

    said = render.render_worst([row(1, 2.0, 4.0, 8.0), row(2, 3.0, 4.0, 2.0), row(3, 2.0, 2.0, 4.0)])
    assert said.startswith("3 shapes: the median ratio is 1.00, 1 are above 1.1.")
    worst, *_ = [line for line in said.splitlines() if line.startswith("| 8 -> 8")]
    assert worst.split(" | ")[1] == "2" and shapes.PRODUCT in worst and "1.5 [1.5, 1.5]" in worst


def test_there_are_over_200_shapes():
    assert len(set(shapes.shapes(smallest=False))) > 200


def test_a_wrong_product_is_not_timed(monkeypatch):
    monkeypatch.setattr(shapes, "use_backend", lambda _: contextlib.nullcontext())
    monkeypatch.setattr(shapes.QuantSparseLinear, "pack", lambda self: Drifting(self.out_features))
    with pytest.raises(WrongResultError, match="sparseq"):
        shapes.measure(3, 4, 5, 1)


class Drifting(torch.nn.Module):
    """Another result in every call."""

    def __init__(self, outputs):
        super().__init__()
        self.outputs, self.calls = outputs, 0

    def forward(self, x):
        self.calls += 1
        return torch.full((*x.shape[:-1], self.outputs), float(self.calls))


def test_blocks_are_counted(tmp_path):
    assert blocks.main(["--smallest", "--out", str(tmp_path)]) == 0
    [result] = common.read_results("blocks", tmp_path)
    shares = {(row["case"]["pattern"], row["case"]["sparsity"]): row["share"] for row in result["rows"]}
    assert shares["4x4", 0.5] == shares["8x4", 0.5] == shares["32x32", 0.5] == 0.5
    assert 0.15 < shares["4x4", 0.8] <= 0.2 < shares["1x4", 0.9] < 0.5 < shares["unstructured", 0.9]
    assert "4x4 blocks that hold values" in render.render("blocks", tmp_path)


def test_agreement_of_packed_models(tmp_path, tiny_model_dir, tiny_teacher_dir, tiny_csv):
    settings = {
        "model": str(tiny_model_dir), "train_file": str(tiny_csv[0]), "validation_file": str(tiny_csv[1]),
        "max_length": 32, "epochs": 1,
    }  # fmt: skip
    compress(Recipe.from_dict({**settings, "methods": "qat", "out": str(tmp_path / "packed")}), reporter=QUIET)
    assert agreement.main([str(tmp_path / "packed"), str(tmp_path / "packed"), "--out", str(tmp_path)]) == 0
    [result] = common.read_results("agreement", tmp_path)
    assert len(result["rows"]) % 2 == 0 and result["settings"] == {"models": ["packed", "packed"]}
    fused, eager = result["rows"][:2]
    assert fused["case"]["beside"] == eager["case"]["beside"] == agreement.LAYERED
    assert fused["distance"] < 1e-2 and eager["distance"] < 1e-2 and fused["changed"] == 0
    learning = {"methods": "kd", "teacher": str(tiny_teacher_dir), "out": str(tmp_path / "plain")}
    compress(Recipe.from_dict({**settings, **learning}), reporter=QUIET)
    with pytest.raises(InputError, match="does not run fused"):
        agreement.main([str(tmp_path / "plain")])


def test_agreement_counts_classes_and_distances():
    logits = {"a": torch.tensor([[1.0, 0.0], [0.0, 3.0]]), "b": torch.tensor([[0.0, 4.0], [0.0, 3.0]])}
    task = Task("custom", ("text",))
    found = agreement.row("a", "b", logits, torch.tensor([0, 1]), task)
    assert found["changed"] == 1 and found["distance"] == pytest.approx(17**0.5 / 5)
    assert found["scores"] == {"a": 1.0, "b": 0.5}
    numbers = {"a": torch.tensor([[1.0], [2.0], [4.0]]), "b": torch.tensor([[1.0], [2.0], [3.0]])}
    regression = Task("numbers", ("text",), num_labels=1, metrics=("pearson",), score_metrics=("pearson",))
    found = agreement.row("a", "b", numbers, torch.tensor([1.0, 2.0, 3.0]), regression)
    assert found["changed"] is None and found["cells"]["of another class"] == "-"
