"""The rate that a run chooses, and what it says at its start and end."""

import shlex
from types import SimpleNamespace
from typing import Any

import pytest
from datasets import Dataset

from sparseq.errors import InputError
from sparseq.tasks import Data, get_task
from sparseq.train import Recipe, advice, summary
from sparseq.train.settings import flag


def model(**config: Any) -> Any:
    return SimpleNamespace(config=SimpleNamespace(**config))


@pytest.mark.parametrize(
    ("width", "rate"),
    [(32, 3e-4), (128, 3e-4), (256, 3e-4), (312, 1e-4), (384, 1e-4), (512, 1e-4), (768, 5e-5), (1024, 3e-5)],
)
def test_the_narrower_the_model_the_higher_the_rate(width: int, rate: float) -> None:
    assert advice.peak_rate(Recipe(), model(hidden_size=width)) == rate
    assert advice.described_rate(Recipe(), model(hidden_size=width)) == (
        f"{rate:g} (by the hidden size {width}; or --lr)"
    )


@pytest.mark.parametrize("unknown", [SimpleNamespace(), model(), model(hidden_size=None), model(hidden_size="wide")])
def test_a_model_of_unknown_width_is_trained_as_bert_base(unknown: Any) -> None:
    assert advice.peak_rate(Recipe(), unknown) == advice.peak_rate(Recipe(), model(hidden_size=768))
    assert "unknown" in advice.described_rate(Recipe(), unknown)


def test_a_rate_that_is_given_is_taken() -> None:
    recipe = Recipe().replace(lr="2e-3")
    assert advice.peak_rate(recipe, model(hidden_size=32)) == 2e-3
    assert advice.described_rate(recipe, model(hidden_size=32)) == "0.002"
    for bad in ("fast", 0, -1, "nan", True):
        with pytest.raises(InputError, match="--lr wants a number above 0, or auto, not"):
            Recipe().replace(lr=bad)


def test_the_plan_of_pruning_is_told() -> None:
    recipe = Recipe().replace(methods="mp", prune_warmup=0.1, prune_end=0.7)
    when, more = advice.described_pruning(recipe, 114)
    assert when == "from step 11 to 80 of 114, which leaves 34 to recover in"
    assert "--epochs" in more
    assert len(advice.described_pruning(recipe, advice.FEW_STEPS)) == 1


def test_layers_that_are_nearly_removed_are_named() -> None:
    found = advice.nearly_removed({"a": 0.951, "b": 0.95, "c": 0.2, "d": 0.99})
    assert found == {"a": 0.951, "d": 0.99}
    (line,) = advice.at_end(found)
    assert "a (95.1%), d (99.0%)" in line and "--max-layer-sparsity" in line
    assert advice.at_end({}) == []


@pytest.mark.parametrize(("of_teacher", "told"), [(0.76, False), (0.75, True), (0.1, True)])
def test_a_teacher_is_compared_with_one_answer(of_teacher: float, told: bool) -> None:
    rows = Dataset.from_dict({"text_a": ["a"] * 4, "label": [0, 1, 0, 0]})
    data = Data(get_task("sst2"), None, {"validation": rows})
    sentences = advice.weak_teacher(data, of_teacher)
    assert sentences == (["one answer for all rows would score 0.7500: is it a teacher of this task?"] if told else [])


@pytest.mark.parametrize(("of_teacher", "told"), [(0.01, False), (0.0, True), (-0.8, True)])
def test_any_number_has_no_correlation(of_teacher: float, told: bool) -> None:
    rows = Dataset.from_dict({"text_a": ["a"] * 3, "text_b": ["b"] * 3, "label": [0.5, 1.5, 4.0]})
    data = Data(get_task("stsb"), None, {"validation": rows})
    assert bool(advice.weak_teacher(data, of_teacher)) is told


def test_a_teacher_is_compressed_on_the_rows_that_it_was_trained_on() -> None:
    """The command that is shown next reads as the recipe does, with the settings of data that are no defaults."""
    given = {
        "task": "sst2", "data_dir": "my glue", "max_train_rows": 100, "max_validation_rows": 50, "held_out_rows": 20,
        "max_length": 64,
        "text_columns": ("a", "b"), "label_column": "y", "label_kind": "classes", "train_file": "t.csv",
        "validation_file": "v.csv", "dataset": "me/films:all", "train_split": "train[:90%]",
        "validation_split": "train[90%:]",
    }  # fmt: skip
    assert set(given) == set(summary.DATA_SETTINGS)
    result: Any = SimpleNamespace(out="runs/teacher", methods=(), task_definition={"columns": ["a"]})
    ((_, command),) = [found for found in summary.next_commands(result, Recipe(**given)) if "compress" in found[1]]
    words = shlex.split(command)
    assert words[:6] == ["sparseq", "compress", "--model", "runs/teacher", "--teacher", "runs/teacher"]
    shown = dict(zip(words[6::2], words[7::2], strict=True))
    wanted = {flag(name): ",".join(v) if isinstance(v, tuple) else str(v) for name, v in given.items()}
    assert shown == {**wanted, "--out": "runs/teacher-student"}
    ((_, command),) = [found for found in summary.next_commands(result, Recipe(task="sst2")) if "compress" in found[1]]
    assert command.endswith("--task sst2 --out runs/teacher-student")
