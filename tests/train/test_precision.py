"""One place decides what is computed in bf16: training steps and the teacher's logits. Everything else is in fp32."""

import ast
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import nan
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sparseq.checkpoint import read_metadata
from sparseq.errors import InputError
from sparseq.train import Recipe, RunResult, compress, evaluate, predict, rows, run, scoring, trainer

TRAIN = Path(trainer.__file__).parent
# As by each pass over several processors.
FORCED = os.environ.get("SPARSEQ_TEST_PRECISION")
RECIPES: list[dict[str, Any]] = [
    {"methods": "none"},
    {"methods": "qat", "scale": "lsq"},
    {"activation": "static", "qat_start": 4},
    {"activation": "static", "qat_start": 1000},
    {"hidden_loss": 1.0},
]
PRECISIONS = ("fp32", "bf16")
PACKED: list[dict[str, Any]] = [*RECIPES, {"bits": 4}, {"bits": 16}]


def numbers(result: RunResult) -> tuple[Any, ...]:
    """What a run came to, without times and paths."""
    return result.metrics, result.score, result.score_before_packing, read_metadata(result.out)["sha256"]


@pytest.fixture
def autocast_seen(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, set[bool]]]:
    """Whether autocast was on in the layers' forwards, by what they were computed for."""
    seen: dict[str, set[bool]] = {"training": set(), "teacher's logits": set(), "evaluation": set()}
    purpose = ["evaluation"]

    def during(owner: Any, name: str, what: str) -> None:
        function = getattr(owner, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            purpose.append(what)
            try:
                return function(*args, **kwargs)
            finally:
                purpose.pop()

        monkeypatch.setattr(owner, name, call)

    during(trainer.CompressTrainer, "training_step", "training")
    during(rows, "teacher_logits", "teacher's logits")

    def look(module: nn.Module, inputs: Any) -> None:
        if not list(module.children()):  # a wrapped forward shows inside it only
            seen[purpose[-1]].add(torch.is_autocast_enabled("cpu"))

    hook = nn.modules.module.register_module_forward_pre_hook(look)
    yield seen
    hook.remove()


# In fp32 only what surrounds a run could bring in autocast, whatever the recipe.
@pytest.mark.parametrize(
    ("changes", "precision"),
    [*((changes, "bf16") for changes in RECIPES), (RECIPES[2], "fp32"),
     *(pytest.param(changes, "fp32", marks=pytest.mark.slow) for changes in RECIPES if changes is not RECIPES[2])],
    ids=str,
)  # fmt: skip
def test_evaluation_and_calibration_are_in_fp32(
    changes: dict[str, Any],
    precision: str,
    make_recipe: Callable[..., Recipe],
    autocast_seen: dict[str, set[bool]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SPARSEQ_CACHE", str(tmp_path / "cache"))  # the teacher's logits are not there yet
    recipe = make_recipe(**{"epochs": 1, **changes}, precision=precision)
    with torch.autocast("cpu", torch.bfloat16):  # what surrounds a run decides nothing
        result = compress(recipe)
        assert evaluate(result.out)["metrics"] == result.metrics
        predict(result.out, [("the film was good",)])
    taught = {precision == "bf16"} if recipe.uses("kd") else set()
    assert autocast_seen == {
        "training": {precision == "bf16"},
        "teacher's logits": taught,
        "evaluation": {False},
    }


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_numbers_that_are_none_are_looked_for_as_they_were_computed(
    precision: str, make_recipe: Callable[..., Recipe]
) -> None:
    found: list[bool] = []

    def look(model: nn.Module, batch: dict[str, Tensor]) -> str:
        found.append(torch.is_autocast_enabled("cpu"))
        return "layer"

    recipe = make_recipe(epochs=1, precision=precision)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "find_nonfinite", look)
        patch.setattr(trainer, "label_loss", lambda logits, *args, **kwargs: logits.sum() * nan)
        with pytest.raises(InputError, match="is not a finite number"):
            compress(recipe.replace(methods=()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scoring, "find_nonfinite", look)
        patch.setattr(scoring, "predict_logits", lambda model, rows, *args, **kwargs: torch.full((len(rows), 2), nan))
        with pytest.raises(InputError, match="hold NaN or infinity"), torch.autocast("cpu", torch.bfloat16):
            compress(recipe.replace(methods=()))
    assert found == [precision == "bf16", False]


@contextmanager
def logits_kept(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Tensor]]:
    """The logits of each evaluation, in order."""
    kept: list[Tensor] = []
    original = scoring.predict_logits

    def keeping(*args: Any, **kwargs: Any) -> Tensor:
        kept.append(original(*args, **kwargs))
        return kept[-1]

    with monkeypatch.context() as patch:
        patch.setattr(scoring, "predict_logits", keeping)
        yield kept


# By default one precision a recipe, each in turn.
@pytest.mark.processor
@pytest.mark.parametrize(
    ("changes", "precision"),
    [*((changes, FORCED or PRECISIONS[number % 2]) for number, changes in enumerate(PACKED)),
     *(pytest.param(changes, PRECISIONS[1 - number % 2], marks=pytest.mark.slow)
       for number, changes in enumerate(PACKED) if not FORCED)],
    ids=str,
)  # fmt: skip
def test_packing_changes_logits_by_rounding_only(
    changes: dict[str, Any], precision: str, make_recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    with logits_kept(monkeypatch) as kept:
        result = compress(make_recipe(**{"epochs": 1, "methods": "qat", **changes}, precision=precision))
        found = evaluate(result.out)
    before, packed, again = kept
    # fp32 rounds to 6e-8; bf16 would differ by 4e-3
    torch.testing.assert_close(packed, before, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(again, packed, rtol=1e-5, atol=1e-5)
    assert found["score"] == result.score
    assert torch.equal(packed.argmax(-1), before.argmax(-1))
    assert result.score_before_packing == result.score


def test_a_run_leaves_nothing_behind_for_the_next(make_recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    order = ["fp32", "bf16", "fp32", "bf16"]
    results = [
        numbers(compress(make_recipe(precision=precision, epochs=1, out=str(tmp_path / str(number)))))
        for number, precision in enumerate(order)
    ]
    assert results[0] == results[2] and results[1] == results[3]
    assert results[0] != results[1]


def test_the_launchers_mixed_precision_does_not_count(
    make_recipe: Callable[..., Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`accelerate launch` sets it in the environment; the recipe's precision is the one that counts."""
    plain = compress(make_recipe(precision="fp32", epochs=1, out=str(tmp_path / "plain")))
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    launched = compress(make_recipe(precision="fp32", epochs=1, out=str(tmp_path / "launched")))
    assert numbers(launched) == numbers(plain)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_student_is_not_wrapped(
    precision: str, make_recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[nn.Module] = []
    pack = run.pack

    def look(model: nn.Module) -> nn.Module:
        trained.append(model)
        return pack(model)

    monkeypatch.setattr(run, "pack", look)
    compress(make_recipe(precision=precision, epochs=1))
    assert not {"forward", "_original_forward"} & set(vars(trained[0]))


def test_autocast_is_switched_in_one_place() -> None:
    """Nor is a library asked for mixed precision."""
    found = set()
    for path in sorted(TRAIN.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and "autocast" in node.attr:
                found.add((path.name, node.attr))
            if isinstance(node, ast.keyword) and node.arg in ("bf16", "fp16", "tf32", "mixed_precision"):
                found.add((path.name, node.arg))
    assert found == {("precision.py", "autocast")}
    assert "ACCELERATE_MIXED_PRECISION" not in os.environ
