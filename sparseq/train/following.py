"""Following a training: its course, evaluations while it lasts, the best weights, and reports to trackers."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from sparseq.hf.callbacks import PruningCallback
from sparseq.tasks import Task, score
from sparseq.tasks.held_out import HELD_OUT

from . import distributed
from .best import BestWeights
from .curve import CURVE, Step, best_step, from_csv, to_csv
from .durable import write_whole
from .folder import RunFolder
from .prepare import Prepared
from .progress import Reporter
from .recipe import Recipe
from .reports import Reports
from .rows import Rows
from .scoring import evaluate_model


class Following(TrainerCallback):
    """Records each step, evaluates the student every `eval_every` steps and at the last, and keeps the best weights.

    It stands behind the callbacks of pruning and quantization, and sees the model that their step has made. An
    evaluation changes neither the model nor any random state: the training is the same with and without it.

    rows: evaluations are on the held-out rows, if there are any, else on the validation rows.
    """

    def __init__(self, recipe: Recipe, prepared: Prepared, folder: RunFolder, rows: Rows, reporter: Reporter) -> None:
        self.recipe, self.prepared, self.folder, self.reporter = recipe, prepared, folder, reporter
        self.splits = rows.held_out or rows.splits
        self.task: Task = replace(prepared.task, validation_splits=tuple(self.splits))
        self.best = BestWeights(folder.checkpoints)
        self.steps: list[Step] = []
        self.checkpoint: Path | None = None
        self.pruning: PruningCallback | None = None
        self.loss: Callable[[], float] = lambda: math.nan
        self.reports = Reports(recipe, folder, self.evaluated_on, reporter)
        self.rate = 0.0

    @property
    def evaluated_on(self) -> str:
        """The split that evaluations are on: "held_out" or "validation"."""
        return HELD_OUT if HELD_OUT in self.splits else "validation"

    def first(self, steps: int) -> float:
        """The first step after which the model counts as a result, in a training of this many: with its final sparsity,
        and quantized if that happens in training."""
        recipe = self.recipe
        pruned = recipe.pruning_steps(steps)[1] if recipe.uses("mp") else 0
        return max(pruned, recipe.qat_start if recipe.uses("qat") else 0)

    def resume(self, steps: int) -> None:
        """Takes the course so far from the checkpoint, if there is one, in a training of this many steps.

        Older versions wrote none. Raises InputError if the best weights of that time are damaged.
        """
        path = None if self.checkpoint is None else self.checkpoint / CURVE
        self.steps = from_csv(path) if path is not None and path.exists() else []

        def check() -> None:
            if (best := self.chosen(steps)) is not None:
                self.best.checked(best.step)
            self._tidy(steps)
            self._write()
            self.reports.begin(self.steps, steps)

        distributed.in_first(check)

    def chosen(self, steps: int) -> Step | None:
        """The step whose weights are kept, so far, in a training of this many; None for the last one."""
        return best_step(self.steps, self.first(steps)) if self.recipe.keep == "best" else None

    def save(self, checkpoint: Path) -> None:
        """Writes the course so far into a checkpoint that is being written."""
        write_whole(checkpoint / CURVE, to_csv(self.steps))

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.resume(state.max_steps)

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.rate = float(kwargs["lr_scheduler"].get_last_lr()[0])

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        every, step = self.recipe.eval_every, state.global_step
        found = None
        if every is not None and (step % every == 0 or step == state.max_steps):
            found = distributed.in_first(lambda: self._evaluate(state))
            self.reporter.say(f"step {step}: score {found:.4f} on the {self.evaluated_on.replace('_', '-')} rows")
        self.steps.append(self._step(step, found))
        if found is not None and distributed.rank() == 0:
            self._write()
        self.reports.tell(self.steps[-1], state.max_steps)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if distributed.rank() == 0:
            self._write()
            self._tidy(state.max_steps)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if distributed.rank() == 0:
            self._write()

    def _step(self, step: int, found: float | None) -> Step:
        return Step(step, self.loss(), self.rate, None if self.pruning is None else self.pruning.sparsity, found)

    def _evaluate(self, state: TrainerState) -> float:
        """The score of the student as it is; keeps its weights if they are the best."""
        student, tokenizer, size = self.prepared.student, self.prepared.tokenizer, self.recipe.eval_batch_size
        training = student.training
        silent = Reporter(silent=True)  # a phase is shown already
        metrics = evaluate_model(student, self.task, self.splits, tokenizer, batch_size=size, reporter=silent)
        student.train(training)
        found = score(self.task, metrics)
        step, before = state.global_step, self.chosen(state.max_steps)
        counts = self.recipe.keep == "best" and step >= self.first(state.max_steps)
        if counts and (before is None or found > (before.score or 0.0)):
            self.best.save(step, student)
            self._tidy(state.max_steps, step)
        return found

    def _tidy(self, steps: int, *kept: int) -> None:
        """Removes best weights, but for these and those that a checkpoint needs or that are the best so far."""
        if self.recipe.keep != "best":
            return
        needed = set(kept)
        for until in [*self.folder.steps(), len(self.steps)]:
            best = best_step([step for step in self.steps if step.step <= until], self.first(steps))
            needed |= set() if best is None else {best.step}
        self.best.tidy(needed)

    def _write(self) -> None:
        write_whole(self.folder.path / CURVE, to_csv(self.steps))
