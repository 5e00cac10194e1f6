"""Quantization and pruning with transformers' own Trainer."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from trained import STEPS, classifier, trainer
from transformers import Trainer, TrainerCallback

from sparseq import convert, load, pack
from sparseq.errors import InputError
from sparseq.hf import ParameterGroupsMixin, PruningCallback, QATCallback
from sparseq.nn import QuantSparseLinear, named_layers, prunable
from sparseq.prune import PruningSettings, total_sparsity


class GroupsTrainer(ParameterGroupsMixin, Trainer):
    pass


def state(model: Any) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize("criterion", ["auto", "magnitude"])
@pytest.mark.parametrize("pattern", ["4x4", "unstructured"])
def test_a_plain_trainer_prunes_and_quantizes(criterion: str, pattern: str, tmp_path: Path) -> None:
    model = convert(classifier())
    pruning = PruningCallback(sparsity=0.5, pattern=pattern, criterion=criterion, end=0.75)
    trainer(model, tmp_path, callbacks=[pruning, QATCallback()]).train()
    assert total_sparsity(prunable(model)) == pytest.approx(0.5, abs=0.01) and pruning.sparsity == 0.5
    assert pruning.pruner is not None and pruning.pruner.criterion == ("fisher" if criterion == "auto" else "magnitude")
    for _, layer in named_layers(model):
        if layer.mask is not None:
            assert torch.equal(layer.weight == 0, ~layer.mask) and not layer.mask.all()
    packed: Any = pack(model)
    packed.save_pretrained(tmp_path / "packed")
    ids = torch.arange(5, 21).reshape(2, 8)
    with torch.no_grad():
        torch.testing.assert_close(load(tmp_path / "packed")(ids).logits, model.eval()(ids).logits, atol=2e-3, rtol=0)


@pytest.mark.parametrize(
    "settings",
    [{}, {"activation": "static"}, {"activation": "static", "scale": "lsq"}],
    ids=["dynamic", "static", "lsq"],
)
def test_a_resumed_run_does_the_same(settings: dict[str, Any], tmp_path: Path) -> None:
    def run(folder: str, steps: int, resume: str | None = None) -> Any:
        model = convert(classifier(), **settings)
        callbacks = [PruningCallback(PruningSettings(0.5, updates=4)), QATCallback(3)]
        own = trainer(model, tmp_path / folder, GroupsTrainer, STEPS, callbacks=callbacks,
                      save_strategy="steps", save_steps=1)  # fmt: skip
        if steps < STEPS:
            own.add_callback(StopAt(steps))
        own.train(resume_from_checkpoint=resume)
        return model

    expected = state(run("whole", STEPS))
    for stop in (2, 5):
        run(f"broken{stop}", stop)
        found = state(run(f"broken{stop}", STEPS, str(tmp_path / f"broken{stop}" / f"checkpoint-{stop}")))
        assert found.keys() == expected.keys()
        assert not [name for name in expected if not torch.equal(found[name], expected[name])]


class StopAt(TrainerCallback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        control.should_training_stop = state.global_step >= self.step


@pytest.mark.parametrize(("start", "first"), [(0, 0), (3, 3), (0.5, 4), (None, STEPS)])
def test_when_quantization_begins(start: Any, first: int, tmp_path: Path) -> None:
    model = convert(classifier(), activation="static")
    (layer,) = [m for n, m in named_layers(model) if n == "bert.encoder.layer.0.output.dense"]
    assert isinstance(layer, QuantSparseLinear)
    seen: list[tuple[bool, bool]] = []

    class Watch(TrainerCallback):
        def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
            seen.append((layer.quantizing, layer.calibrated))

    trainer(model, tmp_path, callbacks=[QATCallback(start), Watch()]).train()
    assert seen == [(step >= first, step >= first) for step in range(STEPS)]
    assert layer.quantizing and layer.calibrated


def test_a_training_that_stops_early_is_quantized_at_its_end(tmp_path: Path) -> None:
    model = convert(classifier(), activation="static")
    trainer(model, tmp_path, callbacks=[QATCallback(0.5), StopAt(2)]).train()
    assert all(m.quantizing and m.calibrated for _, m in named_layers(model) if isinstance(m, QuantSparseLinear))


def test_callbacks_serve_one_training_after_another(tmp_path: Path) -> None:
    callbacks = [PruningCallback(sparsity=0.5), QATCallback()]
    for _ in range(2):
        model = convert(classifier(), activation="static")
        trainer(model, tmp_path, callbacks=callbacks).train()
        assert total_sparsity(prunable(model)) == pytest.approx(0.5, abs=0.01)
        assert all(m.calibrated for _, m in named_layers(model) if isinstance(m, QuantSparseLinear))


def test_ranges_are_found_from_the_first_training_rows_and_leave_training_alone(tmp_path: Path) -> None:
    """Which rows a step trains on does not depend on the calibration."""
    expected, found = [], []
    for order, settings in ((expected, {}), (found, {"activation": "static"})):

        class Watch(TrainerCallback):
            def on_pre_optimizer_step(self, *args: Any, order: Any = order, **kwargs: Any) -> None:
                order.append(torch.get_rng_state().sum().item())

        model = convert(classifier(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0), **settings)
        trainer(model, tmp_path, callbacks=[QATCallback(), Watch()]).train()
    assert found == expected


def test_given_batches_are_taken(tmp_path: Path) -> None:
    batches = [{"input_ids": torch.full((1, 4), 7)}]
    scales = []
    for given in (batches, lambda: iter(batches)):
        model = convert(classifier(), activation="static")
        trainer(model, tmp_path, steps=1, callbacks=[QATCallback(batches=given, calibration="mse")]).train()
        scales.append(torch.cat([m.input_scale for _, m in named_layers(model) if isinstance(m, QuantSparseLinear)]))
    assert torch.equal(*scales) and (scales[0] > 0).all()


def test_a_plain_trainer_would_decay_learned_scales(tmp_path: Path) -> None:
    model = convert(classifier(), scale="lsq")
    with pytest.raises(InputError, match=r"decays the learned scale .*step_size'.*ParameterGroupsMixin"):
        trainer(model, tmp_path, callbacks=[QATCallback()], weight_decay=0.01).train()
    own = trainer(model, tmp_path, GroupsTrainer, callbacks=[QATCallback()], weight_decay=0.01)
    own.train()
    scales = {id(p) for name, p in model.named_parameters() if name.endswith("step_size")}
    (group,) = [g for g in own.optimizer.param_groups if {id(p) for p in g["params"]} & scales]
    assert {id(p) for p in group["params"]} == scales
    assert group["weight_decay"] == 0.0 and group["lr"] == pytest.approx(1e-5)
    trainer(convert(classifier(), scale="lsq"), tmp_path, callbacks=[QATCallback()], weight_decay=0.0).train()


def test_groups_of_the_trainers_own_are_kept(tmp_path: Path) -> None:
    """As of sentence-transformers, whose losses have parameters, too."""

    class Own(ParameterGroupsMixin, Trainer):
        def get_optimizer_cls_and_kwargs(self, args: Any, model: Any = None) -> Any:
            kind, options = super().get_optimizer_cls_and_kwargs(args, model)
            return kind, {**options, "optimizer_dict": [{"params": [*model.parameters()], "weight_decay": 0.2}]}

    model = convert(classifier(), scale="lsq")
    own = trainer(model, tmp_path, Own, callbacks=[QATCallback()])
    own.train()
    weights, scales = own.optimizer.param_groups
    assert weights["weight_decay"] == 0.2 and weights["lr"] == pytest.approx(1e-3)
    assert scales["weight_decay"] == 0.0 and scales["lr"] == pytest.approx(1e-5)
    expected = {id(p) for name, p in model.named_parameters() if name.endswith("step_size")}
    assert {id(p) for p in scales["params"]} == expected
    assert len(weights["params"]) + len(scales["params"]) == len(list(model.parameters()))


def test_bad_input_stops_before_the_first_step(tmp_path: Path) -> None:
    for callback, match in (
        (QATCallback(), "no layers to quantize: call sparseq.convert"),
        (PruningCallback(), "there is nothing to prune"),
    ):
        with pytest.raises(InputError, match=match):
            trainer(classifier(), tmp_path, callbacks=[callback]).train()
    with pytest.raises(InputError, match="pattern 5x5"):
        trainer(convert(classifier()), tmp_path, callbacks=[PruningCallback(pattern="5x5")]).train()
    with pytest.raises(InputError, match="starts at step -1"):
        QATCallback(-1)
    with pytest.raises(InputError, match="either settings or their fields"):
        PruningCallback(PruningSettings(), sparsity=0.5)
    for fields, match in (
        ({"criterion": "fishr"}, "criterion is 'fishr': it must be one of 'auto', 'magnitude', 'fisher'"),
        ({"end": 1.5}, r"end is 1\.5: it must be a share of training"),
        ({"updates": 0}, "updates is 0"),
    ):
        with pytest.raises(InputError, match=match):
            PruningCallback(**fields)
    with pytest.raises(InputError, match="second moments"):
        model = convert(classifier())
        sgd = torch.optim.SGD(model.parameters(), 0.1)
        trainer(model, tmp_path, callbacks=[PruningCallback(criterion="fisher")], optimizers=(sgd, None)).train()
