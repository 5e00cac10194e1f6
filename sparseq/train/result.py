"""`RunResult`: what a run came to, in memory and in its folder."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sparseq.errors import InputError
from sparseq.reading import build

from .folder import RunFolder


@dataclass(frozen=True)
class RunResult:
    """What a run came to; `metrics.json` holds the same.

    Scores and metrics are fractions on the validation data, of the packed model as loaded back from the folder;
    `score_before_packing` is the trained model's. sparsity, pattern: as asked for, None without mp; sparsity_reached:
    share of all the weights that mp acts on which is removed. bits: None without qat. Sizes in bytes: see
    `sparseq.size_report`. rows: of each split, training with its augmented copies. steps: of the optimizer. seconds:
    wall time, over resumes. task_definition: names the labels for predicting. teacher_score: the teacher's own on the
    validation data, None without kd. threads, processor: of the process that scored, and of training unless it was
    resumed on another machine; sums are rounded otherwise with another number of threads. fingerprint: digests of data,
    models and tokenizers (see `fingerprint`). lr: the peak learning rate. layers_past_95: sparsity of each layer of
    which mp removed more than 95 %. precision: of the training, "fp32" or "bf16". backend: that computed sparseq's ops,
    None where there were none. scope: in which weights were ranked, None without mp. texts_cut: rows of all splits that
    were longer than the recipe's `max_length`. augmentation: copies of training rows, words of the rows that they were
    asked for, how many of these words were replaced, copies that were not added as nothing could be replaced, and the
    rate reached (see `sparseq.augment.AugmentationStats`); empty without copies. tokenizer: digest of the saved one.
    All from teacher_score on are empty in what older versions wrote. finished_before: the run was found finished, and
    was not run again.
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
    scope: str | None = None
    texts_cut: int | None = None
    tokenizer: str | None = None
    augmentation: dict[str, float] = field(default_factory=dict)
    out: str = field(default="", compare=False)
    finished_before: bool = field(default=False, compare=False)

    def as_dict(self) -> dict[str, Any]:
        """The content of `metrics.json`."""
        return {key: value for key, value in asdict(self).items() if key not in ("out", "finished_before")}

    @classmethod
    def from_folder(cls, folder: str | Path) -> "RunResult":
        """The result that a finished run left in its folder. Raises InputError where there is none."""
        values = RunFolder(folder).metrics()
        try:
            return build(cls, {**values, "out": str(folder)})
        except ValueError as error:
            raise InputError(
                f"the metrics.json of {folder} is another version's ({error}): run it into a new folder"
            ) from None
