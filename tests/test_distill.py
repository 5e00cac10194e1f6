"""The distillation losses against their formulas, and the cache of the teacher's logits."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification, BertTokenizerFast, BertweetTokenizer

from sparseq.distill import (
    HiddenStates,
    TeacherLogits,
    digest_model,
    digest_texts,
    digest_tokenizer,
    distillation_loss,
    hidden_state_loss,
    label_loss,
    layer_map,
)
from sparseq.errors import InputError, MachineError

STUDENT = torch.tensor([[2.0, -1.0, 0.5], [0.0, 0.0, 3.0]], dtype=torch.float64)
TEACHER = torch.tensor([[1.0, 1.0, -2.0], [4.0, 0.0, 1.0]], dtype=torch.float64)
LABELS = torch.tensor([0, 2])


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_ce_is_hintons_loss(temperature: float, alpha: float) -> None:
    """T^2 times the soft cross-entropy, less the teacher's entropy; the same gradient as with it."""
    student = STUDENT.clone().requires_grad_()
    found = distillation_loss(student, TEACHER, LABELS, temperature=temperature, alpha=alpha)
    p, q = (TEACHER / temperature).softmax(-1), (student / temperature).log_softmax(-1)
    cross_entropy = temperature**2 * -(p * q).sum(-1).mean()
    entropy = temperature**2 * -(p * p.log()).sum(-1).mean()
    hard = F.cross_entropy(student, LABELS)
    torch.testing.assert_close(
        found.double(), alpha * (cross_entropy - entropy) + (1 - alpha) * hard, rtol=1e-5, atol=1e-6
    )
    [gradient] = torch.autograd.grad(found, student)
    [wanted] = torch.autograd.grad(alpha * cross_entropy + (1 - alpha) * hard, student)
    torch.testing.assert_close(gradient, wanted, rtol=1e-5, atol=1e-6)


def test_ce_is_zero_where_the_logits_agree() -> None:
    assert distillation_loss(TEACHER, TEACHER, LABELS, alpha=1.0).item() == pytest.approx(0, abs=1e-6)
    assert distillation_loss(TEACHER + 5, TEACHER, LABELS, alpha=1.0).item() == pytest.approx(0, abs=1e-6)


def test_mse_with_classes_and_with_numbers() -> None:
    found = distillation_loss(STUDENT, TEACHER, LABELS, kind="mse", alpha=0.25)
    wanted = 0.25 * (STUDENT - TEACHER).square().mean() + 0.75 * F.cross_entropy(STUDENT, LABELS)
    torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=1e-6)
    student, teacher, labels = torch.tensor([[1.0], [2.0]]), torch.tensor([[3.0], [2.0]]), torch.tensor([0.0, 2.5])
    found = distillation_loss(student, teacher, labels, kind="mse", alpha=0.5, regression=True)
    assert found.item() == pytest.approx(0.5 * 2.0 + 0.5 * (1 + 0.25) / 2)
    assert label_loss(student, labels, regression=True).item() == pytest.approx(0.625)


def test_half_precision_logits_are_computed_in_fp32() -> None:
    found = distillation_loss(STUDENT.bfloat16(), TEACHER.bfloat16(), LABELS)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, distillation_loss(STUDENT, TEACHER, LABELS), rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("kind", ["ce", "mse"])
@pytest.mark.parametrize("alphas", [[0.5, 1.0], [0.25, 0.25], [1.0, 0.0]], ids=str)
def test_rows_may_have_a_weight_each(kind: str, alphas: list[float]) -> None:
    options: dict[str, Any] = {"kind": kind, "temperature": 3.0}
    found = distillation_loss(STUDENT, TEACHER, LABELS, alpha=torch.tensor(alphas), **options)
    rows = [
        distillation_loss(STUDENT[i : i + 1], TEACHER[i : i + 1], LABELS[i : i + 1], alpha=alpha, **options)
        for i, alpha in enumerate(alphas)
    ]
    torch.testing.assert_close(found, (rows[0] + rows[1]) / 2)


def test_a_weight_for_each_row_of_a_regression() -> None:
    student, teacher, labels = torch.tensor([[1.0], [2.0]]), torch.tensor([[0.0], [4.0]]), torch.tensor([3.0, 7.0])
    found = distillation_loss(student, teacher, labels, kind="mse", alpha=torch.tensor([0.5, 1.0]), regression=True)
    assert found.item() == pytest.approx(((0.5 * 1 + 0.5 * 4) + 4) / 2)


def test_bad_losses() -> None:
    with pytest.raises(InputError, match="unknown kd loss 'kl'"):
        distillation_loss(STUDENT, TEACHER, LABELS, kind="kl")
    with pytest.raises(InputError, match="use mse"):
        distillation_loss(STUDENT[:, :1], TEACHER[:, :1], LABELS, regression=True)
    with pytest.raises(InputError, match="same number of labels"):
        distillation_loss(STUDENT, TEACHER[:, :2], LABELS)


def test_layer_map() -> None:
    assert layer_map(3, 6) == ((1, 2), (2, 4), (3, 6))
    assert layer_map(4, 12) == ((1, 3), (2, 6), (3, 9), (4, 12))
    assert layer_map(2, 2) == ((1, 1), (2, 2))
    assert layer_map(3, 4) == ((1, 1), (2, 3), (3, 4))
    with pytest.raises(InputError, match="4 student layers cannot be mapped to 2"):
        layer_map(4, 2)


def test_hidden_state_loss_ignores_padding() -> None:
    student, teacher = torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    mask = torch.tensor([[1, 1, 0], [1, 0, 0]])
    wanted = torch.cat([(student - teacher)[0, :2], (student - teacher)[1, :1]]).square().mean()
    torch.testing.assert_close(hidden_state_loss([student], [teacher], mask), wanted)
    student[0, 2] = torch.inf
    torch.testing.assert_close(hidden_state_loss([student], [teacher], mask), wanted)


class Outputs:
    def __init__(self, hidden_states: tuple[torch.Tensor, ...]) -> None:
        self.hidden_states = hidden_states


class Encoder(nn.Module):
    def forward(self, x: torch.Tensor) -> Outputs:
        return Outputs((x, x + 1, x + 2))


def test_hidden_states_projects_only_where_widths_differ_and_detaches() -> None:
    student, x = Encoder(), torch.randn(2, 3, 4)
    hidden = HiddenStates([1, 2], 4, 4)
    hidden.attach(student)
    assert all(torch.equal(a, b) for a, b in zip(student(x).hidden_states, (x + 1, x + 2), strict=True))
    hidden.detach(student)
    assert len(student(x).hidden_states) == 3 and not list(student.children())
    wider = HiddenStates([2], 4, 6)
    wider.attach(student)
    [state] = student(x).hidden_states
    assert state.shape == (2, 3, 6)
    assert {name for name, _ in student.named_parameters()} == {
        "hidden_projection.projections.0.weight", "hidden_projection.projections.0.bias",
    }  # fmt: skip


def test_logits_are_computed_once_and_survive_damage(tmp_path: Path) -> None:
    calls = []

    def compute() -> torch.Tensor:
        calls.append(1)
        return TEACHER

    cache = TeacherLogits(tmp_path / "logits", ("rows", "teacher"))
    for _ in range(2):
        found = cache.get(2, compute)
        assert found.dtype == torch.float32 and torch.equal(found, TEACHER.float())
    assert len(calls) == 1
    assert [path.suffix for path in cache.folder.iterdir()] == [".safetensors"]
    assert cache.load(3) is None
    assert TeacherLogits(cache.folder, ("rows", "other teacher")).load(2) is None


def _negate(path: Path) -> None:
    held = load_file(path)
    save_file({**held, "logits": -held["logits"]}, path)


def _another_digest(path: Path) -> None:
    save_file({**load_file(path), "sha256": torch.zeros(32, dtype=torch.uint8)}, path)


def _from_another_key(path: Path) -> None:
    other = TeacherLogits(path.parent, ("rows", "other teacher"))
    other.get(2, lambda: -TEACHER)
    os.replace(other.path, path)


def _a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


HARMS: dict[str, Callable[[Path], Any]] = {
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-4]),
    "emptied": lambda path: path.write_bytes(b""),
    "negated": _negate,
    "another digest": _another_digest,
    "no digest": lambda path: save_file({"logits": -TEACHER.float()}, path),
    "another dtype": lambda path: save_file({**load_file(path), "logits": TEACHER}, path),
    "another key's": _from_another_key,
    "a folder": _a_folder,
    "a pipe": _a_pipe,
}


@pytest.mark.parametrize("harm", HARMS)
def test_altered_logits_are_computed_anew(harm: str, tmp_path: Path) -> None:
    cache = TeacherLogits(tmp_path / "logits", ("rows", "teacher"))
    cache.get(2, lambda: TEACHER)
    HARMS[harm](cache.path)
    assert cache.load(2) is None
    said: list[str] = []
    assert torch.equal(cache.get(2, lambda: TEACHER, said.append), TEACHER.float())
    assert bool(said) == (harm == "a folder")
    assert harm == "a folder" or cache.load(2) is not None


def test_logits_that_cannot_be_kept(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    cache = TeacherLogits(tmp_path / "file" / "logits", ("rows", "teacher"))
    said: list[str] = []
    assert torch.equal(cache.get(2, lambda: TEACHER, said.append), TEACHER.float())
    [sentence] = said
    assert str(tmp_path / "file") in sentence and "are not kept for another run" in sentence
    with pytest.raises(MachineError, match="cannot write"):
        cache.get(2, lambda: TEACHER)


def test_digests_tell_rows_and_models_apart() -> None:
    assert digest_texts([["a", "b"]]) == digest_texts([["a", "b"]])
    different = [[["a", "b"]], [["b", "a"]], [["ab"]], [["a"], ["b"]], [["a", "b"], ["", ""]], [['a", "b']]]
    assert len({digest_texts(columns) for columns in different}) == len(different)
    torch.manual_seed(0)
    model = nn.Linear(2, 2)
    before = digest_model(model)
    assert digest_model(model) == before
    with torch.no_grad():
        model.weight[0, 0] += 1e-6
    assert digest_model(model) != before


@pytest.mark.parametrize(
    "changes",
    [{"hidden_act": "relu"}, {"layer_norm_eps": 1e-5}, {"num_attention_heads": 4}, {"is_decoder": True}],
    ids=str,
)
def test_one_models_weights_under_another_configuration(changes: dict[str, Any]) -> None:
    """Each gives other outputs, though every tensor is the same."""
    settings = {"vocab_size": 5, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    first = BertForSequenceClassification(BertConfig(**settings, intermediate_size=8))
    other = BertForSequenceClassification(BertConfig(**{**settings, "intermediate_size": 8, **changes}))
    other.load_state_dict(first.state_dict())
    assert digest_model(other) != digest_model(first)
    first.config._name_or_path = "elsewhere"
    again = BertForSequenceClassification(BertConfig(**settings, intermediate_size=8))
    again.load_state_dict(first.state_dict())
    assert digest_model(again) == digest_model(first)


TOKENIZERS: dict[str, dict[str, Any]] = {
    "lower case": {"do_lower_case": False},
    "accents": {"strip_accents": False},
    "Chinese characters": {"tokenize_chinese_chars": False},
    "side of padding": {"padding_side": "left"},
    "side of truncation": {"truncation_side": "left"},
    "special tokens": {"cls_token": "[SEP]"},
    "inputs": {"model_input_names": ["input_ids", "attention_mask"]},
}


@pytest.mark.parametrize("changed", TOKENIZERS)
def test_tokenizers_with_one_vocabulary(changed: str, tmp_path: Path) -> None:
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "Good"]))
    first, other = BertTokenizerFast(str(path)), BertTokenizerFast(str(path), **TOKENIZERS[changed])
    assert first.get_vocab() == other.get_vocab()
    before = digest_tokenizer(first)
    assert digest_tokenizer(other) != before
    first(["good", "Good good"], truncation=True, max_length=3, padding=True)  # leaves its settings behind
    assert digest_tokenizer(first) == before == digest_tokenizer(BertTokenizerFast(str(path)))


def test_a_tokenizer_in_python_is_the_same_in_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "vocab.txt").write_text("good 1\nfilm 1\ngo@@ 1\n")
    (tmp_path / "bpe.codes").write_text("g o 2\nf i 1\n")
    made = BertweetTokenizer(str(tmp_path / "vocab.txt"), str(tmp_path / "bpe.codes"))
    assert getattr(made, "backend_tokenizer", None) is None
    made.save_pretrained(tmp_path / "saved")
    shutil.copytree(tmp_path / "saved", tmp_path / "copied")
    shutil.copytree(tmp_path / "saved", tmp_path / "altered")
    (tmp_path / "altered" / "bpe.codes").write_text("f i 2\ng o 1\n")
    monkeypatch.chdir(tmp_path)
    places = ("saved", str(tmp_path / "saved"), "copied")
    digests = {digest_tokenizer(AutoTokenizer.from_pretrained(place)) for place in places}
    assert len(digests) == 1
    assert digest_tokenizer(AutoTokenizer.from_pretrained("altered")) not in digests
