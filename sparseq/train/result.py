"""`RunResult`: the result of a run, in memory and in its folder."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sparseq.errors import InputError
from sparseq.reading import build

from .answers import from_text
from .folder import RunFolder
from .gate import Drop


@dataclass(frozen=True)
class RunResult:
    """The result of a run; `metrics.json` has the same content.

    Scores and metrics are fractions on the validation data, for the packed model as loaded back from the folder.

    Attributes:
        score_before_packing: the score of the trained model.
        sparsity, pattern: as requested; None without mp.
        sparsity_reached: the share of all the weights that mp acts on which is removed.
        bits: of linear layers; None without qat and ptq.
        parameters, nonzero, paper_bytes, stored_bytes: see `sparseq.size_report`; sizes in bytes.
        rows: of each split, training with its augmented copies.
        steps: of the optimizer.
        seconds: wall time, including resumed parts.
        task_definition: the task as a dict, with the names of the labels.
        teacher_score: the teacher's score on the validation data; None without kd.
        threads, processor: of the process that scored, and of training unless it was resumed on another machine.
            Another number of threads rounds sums differently.
        fingerprint: digests of data, models and tokenizers (see `fingerprint`).
        lr: the peak learning rate; None without training.
        layers_past_95: the sparsity of each layer of which mp removed more than 95 %.
        precision: of the training, "fp32" or "bf16".
        backend: that computed sparseq's ops; None if there were none.
        criterion: what weights were ranked by; None without mp, and in runs before there was a choice.
        scope: in which weights were ranked; None without mp.
        texts_cut: rows of all splits that were longer than the recipe's `max_length`.
        augmentation: the number of copies, the number of words of the rows to copy, how many of these were replaced,
            the copies not added because nothing could be replaced, and the rate reached (see
            `sparseq.augment.AugmentationStats`); empty without copies.
        tokenizer: digest of the saved tokenizer.
        held_out_score, held_out_metrics: on the training rows that were held out; None and empty if none were.
        embedding_bits: of embeddings; None without qat and ptq.
        vocabulary: the numbers of tokens "before" and "after" those that no training row has were removed; empty if
            all were kept.
        right: which validation rows were answered right, in their order (`answers.from_text`); None for regressions,
            and in runs before it was recorded.
        kept_step: the step after which the weights were the best, with `keep` best; None for the last.
        selected_on: the rows that it was chosen by: "held_out", or "validation", whose score is then too good.
        drop: how far the score is below another model's; None unless `max_drop` or `baseline` asked for it.
        dataset: the data set that the rows are of: its "name", and if there are, "config" and "revision" (its commit,
            where that is known); empty for files and rows in memory.
        finished_before: the run had finished before and was not run again.

    The attributes from teacher_score on are empty in results of older versions.
    """

    task: str
    methods: tuple[str, ...]
    seed: int
    score: float
    metrics: dict[str, float]
    score_before_packing: float
    sparsity: float | None
    sparsity_reached: float
    pattern: str | None
    bits: int | None
    parameters: int
    nonzero: int
    paper_bytes: int
    stored_bytes: int
    rows: dict[str, int]
    steps: int
    seconds: float
    versions: dict[str, str]
    task_definition: dict[str, Any]
    teacher_score: float | None = None
    threads: int | None = None
    processor: str | None = None
    fingerprint: dict[str, str] = field(default_factory=dict)
    lr: float | None = None
    layers_past_95: dict[str, float] = field(default_factory=dict)
    precision: str | None = None
    backend: str | None = None
    criterion: str | None = None
    scope: str | None = None
    texts_cut: int | None = None
    tokenizer: str | None = None
    augmentation: dict[str, float] = field(default_factory=dict)
    held_out_score: float | None = None
    held_out_metrics: dict[str, float] = field(default_factory=dict)
    embedding_bits: int | None = None
    vocabulary: dict[str, int] = field(default_factory=dict)
    right: str | None = None
    drop: Drop | None = None
    kept_step: int | None = None
    selected_on: str | None = None
    dataset: dict[str, str] = field(default_factory=dict)
    out: str = field(default="", compare=False)
    finished_before: bool = field(default=False, compare=False)

    def right_answers(self) -> list[bool]:
        """For each validation row, in order, whether the right class was predicted.

        Raises InputError for a run that predicts a number, and for one of before this was recorded.
        """
        if self.right is None:
            raise InputError(
                f"the run in {self.out} predicts a number, which is never simply right, or was made before right "
                "answers were recorded: compare its metrics"
            )
        rows = sum(self.rows[split] for split in self.task_definition["validation_splits"])
        answers: list[bool] = from_text(self.right, rows).tolist()
        return answers

    def as_dict(self) -> dict[str, Any]:
        """The content of `metrics.json`."""
        return {key: value for key, value in asdict(self).items() if key not in ("out", "finished_before")}

    @classmethod
    def from_folder(cls, folder: str | Path) -> "RunResult":
        """The result in the folder of a finished run. Raises InputError if there is none."""
        values = RunFolder(folder).metrics()
        try:
            return build(cls, {**values, "out": str(folder)})
        except ValueError as error:
            raise InputError(
                f"the metrics.json of {folder} is another version's ({error}): run it into a new folder"
            ) from None
