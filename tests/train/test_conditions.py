"""What rounds a run's sums beside its settings and data: recorded, said on going on, and in the caches' keys."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from broken_runs import Listening, break_off

from sparseq.train import Recipe, compress, conditions, hardware
from sparseq.train.answers import from_text
from sparseq.train.folder import Marker, RunFolder
from sparseq.train.prepare import prepare
from sparseq.train.scoring import finished, load_folder, own_rows, predict_logits
from sparseq.train.teacher import teacher_logits

OTHERS = {
    "threads": "64", "processor": "another", "precision": "bf16", "torch": "1.0", "transformers": "1.0",
    "sparseq": "0.0.1", "backend": "another",
}  # fmt: skip


def test_every_condition_is_known() -> None:
    assert conditions.current("fp32", ops=True).keys() == OTHERS.keys()
    assert conditions.current("fp32", ops=False).keys() == OTHERS.keys() - {"backend"}


def marker(conditions: dict[str, str]) -> Marker:
    return Marker(3, 9, 1.0, 1, int(conditions["threads"]), conditions)


@pytest.mark.parametrize("name", OTHERS)
def test_a_change_of_any_is_found(name: str) -> None:
    here = conditions.current("fp32", ops=True)
    assert marker(here).changed(here) == []
    there = {**here, name: OTHERS[name]}
    assert marker(there).changed(here) == [f"{name}: {OTHERS[name]} before, {here[name]} now"]


def test_what_older_versions_wrote_says_threads_alone() -> None:
    here = conditions.current("fp32", ops=True)
    old = Marker(3, 9, 1.0, 1, threads=64)
    assert old.changed(here) == [f"threads: 64 before, {torch.get_num_threads()} now"]


def test_it_is_said_on_going_on(make_recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = make_recipe(methods="qat", epochs=1, save_steps=4, precision="fp32")
    known = conditions.current
    with monkeypatch.context() as patch:
        patch.setattr(conditions, "current", lambda *args, **options: {**known(*args, **options), "processor": "other"})
        break_off(recipe, after=6)
    last = RunFolder(str(recipe.out)).last_checkpoint()
    assert last is not None and last[1].conditions["backend"] and last[1].conditions["precision"] == "fp32"
    listening = Listening()
    compress(recipe, reporter=listening)
    [told] = [line for line in listening.said if "under other conditions" in line]
    assert f"(processor: other before, {hardware.processor()} now): rounding differs" in told


@pytest.mark.parametrize("name", ["threads", "processor", "torch", "transformers", "precision"])
def test_logits_of_other_conditions_are_not_taken(
    name: str, make_recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SPARSEQ_CACHE", str(tmp_path / "cache"))
    recipe = make_recipe(methods="kd", precision="fp32").validate().resolved()
    prepared = prepare(recipe)
    assert prepared.data.train is not None
    rows, listening = prepared.data.train, Listening()
    teacher_logits(recipe, prepared, rows, listening)
    kept = set((tmp_path / "cache" / "logits").iterdir())
    teacher_logits(recipe, prepared, rows, listening)
    assert set((tmp_path / "cache" / "logits").iterdir()) == kept
    known = conditions.current
    monkeypatch.setattr(conditions, "current", lambda *args, **options: {**known(*args, **options), name: OTHERS[name]})
    teacher_logits(recipe, prepared, rows, listening)
    assert len(set((tmp_path / "cache" / "logits").iterdir())) == len(kept) + 1


def test_metrics_say_what_the_run_was(make_recipe: Callable[..., Recipe]) -> None:
    result = compress(make_recipe(epochs=1, max_length=6, precision="fp32", methods="qat,mp"))
    written: dict[str, Any] = json.loads((Path(result.out) / "metrics.json").read_text())
    assert (written["precision"], written["augmentation"]) == ("fp32", {})
    assert (written["criterion"], written["scope"]) == ("fisher", "global")
    assert written["backend"] == conditions.current("fp32", ops=True)["backend"]
    assert written["texts_cut"] > 0
    model, tokenizer = load_folder(result.out)
    (rows,) = own_rows(*finished(result.out), tokenizer, model)
    predicted = predict_logits(model, rows, tokenizer, batch_size=8).argmax(-1)
    assert result.right_answers() == (predicted == torch.tensor(rows["labels"][:])).tolist()
    assert from_text(written["right"], len(rows)).tolist() == result.right_answers()
    plain = compress(make_recipe(epochs=1, methods="none", out=str(Path(result.out).parent / "plain")))
    assert (plain.backend, plain.criterion, plain.scope, plain.texts_cut) == (None, None, None, 0)
