"""`Recipe`: all settings of a compression run with defaults and meaning; reading and writing of TOML and YAML."""

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from sparseq.criterion import CRITERIA, PruningSettings, default_scope
from sparseq.dataset_name import TRAIN_SPLIT, VALIDATION_SPLIT, DatasetName
from sparseq.errors import InputError
from sparseq.paths import absolute, expanded, same
from sparseq_kernels.patterns import Pattern
from sparseq_kernels.untrusted import quoted

from .former import with_former
from .gate import compared_model
from .pruning_setting import check_pruning
from .quantizing import CALIBRATION_ROWS, check_quantization
from .recipe_file import as_toml, read_settings
from .settings import Setting, auto, layers, names, number, optional, setting, text, whole, yes_no
from .unknown import unknown_setting
from .weights_setting import check_class_weights

METHODS = ("qat", "kd", "mp")
"""The methods of the paper, which are the default."""

ALL_METHODS = (*METHODS, "ptq")
# In tokens: more than any encoder reads, and few enough to try a text of this length.
LONGEST = 2**20
PATH_SETTINGS = (
    "model",
    "teacher",
    "data_dir",
    "train_file",
    "validation_file",
    "dataset",
    "wordnet",
    "baseline",
    "out",
)
DATA, MODEL, QUANT, QAT, PTQ, MP, KD, AUGMENT, TRAIN, GATE, RUN = (
    "data", "models", "quantization (qat and ptq)", "quantization-aware training (qat)",
    "post-training quantization (ptq)", "pruning (mp)", "knowledge distillation (kd)",
    "augmentation (with or without kd)", "training", "limit on the drop in score", "run",
)  # fmt: skip
PRUNING = PruningSettings()


@dataclass(frozen=True)
class Recipe:
    """The settings of one compression run, with the only defaults: the command line and recipe files use them.

    The paper (Movva et al. 2022) specifies int8 QAT, a linear sparsity schedule after a warm-up for the encoder's
    linear layers, and KD over 3 epochs. It does not specify losses, temperatures and learning rates; the defaults for
    those are our choice.
    """

    # One or two lines per setting, as a table; the formatter would use six for each.
    # fmt: off
    model: str = setting(None, text, MODEL, "the model to compress: tiny, mini, small, medium, base or large, any hub "
                         "id, or a local folder (the teacher's own is fine)", metavar="M")
    teacher: str | None = setting(None, text, MODEL, "the fine-tuned model that kd learns from: a hub id or a local "
                                  "folder", metavar="T")
    layers: int | tuple[int, ...] | None = setting(None, layers, MODEL, "keep only N of the model's layers, evenly "
                                                   "spaced from the first to the last (3 of 6: 0,2,5; 1: the last), "
                                                   "or exactly the layers listed", metavar="N")
    vocabulary: str = setting("all", text, MODEL, "the student's tokens: all, or only those seen in the training rows "
                              "and their copies, with every single character (WordPiece)", choices=("all", "seen"))
    methods: tuple[str, ...] = setting(METHODS, names, MODEL, "any of qat, kd, mp and ptq, separated by commas (not "
                                       "qat and ptq together); none is plain fine-tuning, which also makes teachers",
                                       metavar="LIST")

    task: str | None = setting(None, text, DATA, "a GLUE task: cola, sst2, mrpc, qqp, stsb, mnli, qnli, rte or wnli")
    data_dir: str | None = setting(None, text, DATA, "folder with the task in the classic GLUE layout; without it the "
                                   "data comes from the hub's nyu-mll/glue", metavar="DIR")
    train_file: str | None = setting(None, text, DATA, "your own training rows: .csv, .tsv, .jsonl, .json or "
                                     ".parquet", metavar="FILE")
    validation_file: str | None = setting(None, text, DATA, "your own validation rows", metavar="FILE")
    dataset: str | None = setting(None, text, DATA, "your own rows as a data set of the Hugging Face hub, such as "
                                  "nyu-mll/glue:sst2 (@REVISION pins a branch, tag or commit), or as a local folder of "
                                  "one: of save_to_disk, or of .parquet, .csv or .json files",
                                  metavar="ID[:CONFIG]")
    train_split: str = setting(TRAIN_SPLIT, text, DATA, "the data set's split to train on, or a part of one, such as "
                               "train[:90%]", metavar="SPLIT")
    validation_split: str = setting(VALIDATION_SPLIT, text, DATA, "the data set's split to validate on, or a part of "
                                    "one, such as train[90%:]", metavar="SPLIT")
    text_columns: tuple[str, ...] = setting((), names, DATA, "your rows' text column, or two for sentence pairs",
                                            metavar="A[,B]")
    label_column: str | None = setting(None, text, DATA, "your rows' label column", metavar="NAME")
    label_kind: str = setting("auto", text, DATA, "what your rows' labels are; auto takes whole numbers and names as "
                              "classes, other numbers as regression", choices=("auto", "classes", "regression"))
    max_train_rows: int | None = setting(None, optional(whole(1)), DATA, "train on a random subset of this many rows",
                                         metavar="N")
    max_validation_rows: int | None = setting(None, optional(whole(1)), DATA, "validate on a random subset of this "
                                              "many rows", metavar="N")
    held_out_rows: int | None = setting(None, optional(whole(1)), DATA, "set this many training rows aside and score "
                                        "on them too, to choose recipes by", metavar="N")
    max_length: int = setting(128, whole(4, LONGEST), DATA, "most tokens of a text or pair; longer ones are "
                              "cut", metavar="N")

    bits: int = setting(8, whole(), QUANT, "bits per weight", choices=(4, 8, 16))
    embedding_bits: int | None = setting(None, optional(whole()), QUANT, "bits per weight of embeddings; by default as "
                                         "--bits", choices=(4, 8, 16))
    activation: str = setting("dynamic", text, QUANT, "activation scales: per token, or per tensor (calibrated)",
                              choices=("dynamic", "static"))
    scale: str = setting("max", text, QUANT, "weight scales: from the largest weight, learned (LSQ; qat), or with the "
                         "least squared error of rounding (mse; ptq)", choices=("max", "lsq", "mse"))
    calibration: str = setting("average", text, QUANT, "how a static range is found: the largest magnitude, its "
                               "average over batches, a percentile (99.99), or the least squared error",
                               choices=("max", "average", "percentile", "mse"))
    calibration_rows: int = setting(CALIBRATION_ROWS, whole(1), QUANT, "rows that static ranges and --smooth are found "
                                    "from, in batches of --batch-size", metavar="N")
    calibration_data: str = setting("train", text, QUANT, "what those rows are: training rows, or texts of random "
                                    "tokens, for which no data is read", choices=("train", "random"))
    qat_start: int = setting(0, whole(), QAT, "quantize from this step on; after the last step it is post-training "
                             "quantization", metavar="STEP")
    smooth: float | None = setting(None, optional(number(0, 1)), PTQ, "move this share of the range of attention's "
                                   "outputs into the weights that follow (SmoothQuant's alpha); off by default",
                                   metavar="SHARE")

    sparsity: float = setting(PRUNING.sparsity, number(), MP, "share of the encoder's linear weights removed at the "
                              "end")
    pattern: str = setting(PRUNING.pattern, text, MP, "unstructured, N:M such as 2:4, or RxC blocks such as 4x4")
    criterion: str = setting(PRUNING.criterion, text, MP, "what weights are ranked by: their magnitude, or the "
                             "loss that their removal adds (fisher), estimated from gradients; auto is fisher where it "
                             "can be: not with --prune-embeddings, --scope lamp or normalized, or --prune-end 0",
                             choices=("auto", *CRITERIA))
    scope: str = setting(PRUNING.scope, text, MP, "rank weights over all layers together (global), by "
                         "layer-adaptive scores (lamp), relative to their layer's (normalized), or in each layer; auto "
                         "is lamp for blocks by magnitude, else global",
                         choices=("auto", "global", "lamp", "normalized", "layer"))
    max_layer_sparsity: float = setting(PRUNING.max_layer_sparsity, number(0, 1), MP, "share of one layer that is "
                                        "removed at most, unless scope is layer; the sparsity itself if that is "
                                        "greater", metavar="SHARE")
    schedule: str = setting(PRUNING.schedule, text, MP, "how the sparsity rises", choices=("linear", "cubic"))
    prune_warmup: float = setting(PRUNING.warmup, number(0, 1), MP, "share of training before pruning starts",
                                  metavar="SHARE")
    prune_end: float = setting(PRUNING.end, number(0, 1), MP, "share of training at which the sparsity is reached",
                               metavar="SHARE")
    prune_updates: int = setting(PRUNING.updates, whole(1), MP, "how many times the masks are updated meanwhile",
                                 metavar="N")
    regrow: bool = setting(PRUNING.regrow, yes_no, MP, "keep updating removed weights, so that they may return")
    prune_embeddings: bool = setting(PRUNING.embeddings, yes_no, MP, "prune the embeddings as well (costs accuracy)")
    on_mismatch: str = setting(PRUNING.on_mismatch, text, MP, "what to do with a layer that the pattern does not "
                               "divide", choices=("error", "skip"))

    kd_loss: str = setting("auto", text, KD, "soft cross-entropy (ce), or squared error on the logits (mse); auto is "
                           "ce for classes and mse for regression", choices=("auto", "ce", "mse"))
    temperature: float = setting(2.0, number(0, open_low=True), KD, "softens both models' classes in ce")
    kd_alpha: float = setting(0.5, number(0, 1), KD, "weight of the teacher's loss; the labels' loss gets the rest",
                              metavar="SHARE")
    augment_alpha: float | None = setting(None, optional(number(0, 1)), KD, "the same for augmented copies; by "
                                          "default as for other rows", metavar="SHARE")
    hidden_loss: float = setting(0.0, number(0), KD, "weight of the squared error between hidden states; above 0 the "
                                 "teacher runs during training", metavar="WEIGHT")

    augment_copies: int = setting(0, whole(), AUGMENT, "copies of each training row with synonyms", metavar="N")
    augment_rate: float = setting(0.15, number(0, 1, open_low=True), AUGMENT, "share of a text's words replaced",
                                  metavar="SHARE")
    pos_aware: bool = setting(True, yes_no, AUGMENT, "replace a word only by synonyms of its likely part of speech")
    protected_words: tuple[str, ...] = setting((), names, AUGMENT, "words never replaced", metavar="A,B,...")
    wordnet: str | None = setting(None, text, AUGMENT, "folder with WordNet's index.* and data.* files; searched for "
                                  "by default", metavar="DIR")

    epochs: float = setting(3.0, number(0), TRAIN, "passes over the training rows, copies included; 0, with ptq, "
                            "quantizes the model as it is", metavar="N")
    batch_size: int = setting(32, whole(1), TRAIN, "rows per step, over all processes together", metavar="N")
    lr: float | str = setting("auto", auto(number(0, open_low=True)), TRAIN, "peak learning rate of AdamW; auto goes "
                              "by the model's width: 3e-4 for tiny to 3e-5 for large", metavar="RATE")
    lr_warmup: float = setting(0.1, number(0, 1, open_high=True), TRAIN, "share of training in which the rate rises; "
                               "then it falls to 0 linearly", metavar="SHARE")
    weight_decay: float = setting(0.01, number(0), TRAIN, "AdamW's weight decay", metavar="W")
    class_weights: tuple[str, ...] = setting((), names, TRAIN, "weights of the classes in the labels' loss: none, "
                                             "balanced (by how rare they are), or of some of them, as A=1,B=3",
                                             metavar="LIST")
    precision: str = setting("auto", text, TRAIN, "training arithmetic outside the int8 products; auto uses bf16 only "
                             "if the GPU or CPU computes it natively; models are always evaluated in fp32",
                             choices=("auto", "fp32", "bf16"))

    max_drop: float | None = setting(None, optional(number(0)), GATE, "exit with 3 if the model scores more than this "
                                     "many points below its teacher, or below --baseline, on the validation rows",
                                     metavar="POINTS", resumable=True)
    baseline: str | None = setting(None, text, GATE, "the fine-tuned model that the score is compared with: a hub id "
                                   "or a local folder; by default the teacher, or with --epochs 0 the model itself",
                                   metavar="M", resumable=True)

    eval_every: int | None = setting(None, optional(whole(1)), TRAIN, "score the model every so many steps and after "
                                     "the last, on the held-out rows, or without any on the validation rows; by "
                                     "default only after training", metavar="STEPS")
    keep: str = setting("last", text, TRAIN, "which weights are the result: those of the last step, or of the best "
                        "evaluation (of those with the final sparsity, and quantized)", choices=("last", "best"))

    seed: int = setting(0, whole(0, 2**32 - 1), RUN, "seeds the new head, the order of rows, dropout and augmentation")
    save_steps: int = setting(500, whole(1), RUN, "steps between checkpoints, which a run resumes from",
                              metavar="N", resumable=True)
    eval_batch_size: int = setting(64, whole(1), RUN, "rows per step when only predicting", metavar="N", resumable=True)
    report_to: tuple[str, ...] = setting((), names, RUN, "also report the training to any of tensorboard, wandb, "
                                         "mlflow and trackio, which have to be installed", metavar="LIST",
                                         resumable=True)
    out: str | None = setting(None, text, RUN, "folder the compressed model is written to", metavar="DIR",
                              resumable=True)
    # fmt: on

    @classmethod
    def settings(cls) -> dict[str, Setting]:
        """The description of every setting, by field name, in order."""
        return {f.name: f.metadata["setting"] for f in fields(cls)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], file: str | None = None) -> "Recipe":
        """A recipe from `values`, with defaults for the rest; None means not given, for a setting that is optional.

        Raises InputError for unknown names and wrong types, naming the `file` that they come from, if any.
        """
        where = file or "the recipe"
        known = cls.settings()
        left = {field.name for field in fields(cls) if field.default in (None, ())}
        for name in values:
            if name not in known:
                raise unknown_setting(where, name, values[name], known)
        for name, raw in values.items():
            if raw is None and name not in left:
                raise InputError(f"{where} gives {name} no value: give one, or leave it out for the default")
        given = {name: raw for name, raw in values.items() if raw is not None}
        return cls(**{name: known[name].value(name, raw, file) for name, raw in given.items()})

    @classmethod
    def from_file(cls, path: str | Path) -> "Recipe":
        """Reads settings from a .toml, .yaml or .yml file. Raises InputError if the file is invalid.

        For the recipe in a run's folder, settings that did not exist when it was written get their former meaning.
        """
        values = read_settings(path)
        methods = cls.settings()["methods"].value("methods", values.get("methods", METHODS), str(path))
        return cls.from_dict(with_former(values, methods), str(path))

    def to_toml(self) -> str:
        """The recipe as a TOML document, without `out` and settings that are None; `from_file` reads it back."""
        return as_toml({f.name: getattr(self, f.name) for f in fields(self) if f.name != "out"})

    def replace(self, **changes: Any) -> "Recipe":
        """A copy with some settings changed, each parsed like a value in a file."""
        known = self.settings()
        return dataclasses.replace(self, **{name: known[name].value(name, raw) for name, raw in changes.items()})

    def resolved(self) -> "Recipe":
        """A copy with absolute paths (for paths that exist), which make the recipe in a run's folder usable from
        anywhere, and with the criterion and scope that "auto" stands for. InputError for an unknown home."""
        changes: dict[str, Any] = {}
        if self.uses("mp"):
            changes["criterion"] = self._criterion
            if self.scope == "auto":
                changes["scope"] = default_scope(self._criterion, Pattern.parse(self.pattern))
        for name in PATH_SETTINGS:
            value = getattr(self, name)
            if value is not None and (name == "out" or os.path.exists(expanded(value))):
                changes[name] = str(absolute(value))
        if self.dataset is not None:
            changes["dataset"] = str(DatasetName.parse(self.dataset).resolved())
        return dataclasses.replace(self, **changes)

    def differences(self, other: "Recipe") -> list[str]:
        """The names of the settings that make `other` a different run."""
        return [
            name
            for name, described in self.settings().items()
            if not described.resumable
            and not self._agrees(other, name)
            and not (name == "eval_every" and self.keep == other.keep == "last")
        ]

    def _agrees(self, other: "Recipe", name: str) -> bool:
        """Whether a setting is the same; `resolved` leaves paths that do not exist as they are given."""
        mine, theirs = getattr(self, name), getattr(other, name)
        is_path = name in PATH_SETTINGS and mine is not None and theirs is not None
        return same(mine, theirs) if is_path else bool(mine == theirs)

    def uses(self, method: str) -> bool:
        """Whether the run uses 'qat', 'kd', 'mp' or 'ptq'."""
        return method in self.methods

    def in_use(self) -> tuple[str, ...]:
        """The names of the settings that this run depends on, in order: not those of methods that it does not use.

        The number of copies is one of them even if it is 0.
        """
        unused = {
            QUANT: not self.quantizes,
            QAT: not self.uses("qat"),
            PTQ: not self.uses("ptq"),
            MP: not self.uses("mp"),
            KD: not self.uses("kd"),
            AUGMENT: not self.augment_copies,
        }
        return tuple(
            name
            for name, described in self.settings().items()
            if (name == "augment_copies" or not unused.get(described.group))
            and not described.resumable
            and (name != "teacher" or self.uses("kd"))
            and (name != "eval_every" or self.keep == "best")  # evaluations alone change nothing
        )

    @property
    def width_of_embeddings(self) -> int | None:
        """Bits of the embeddings' weights; None if they are not quantized."""
        return (self.embedding_bits or self.bits) if self.quantizes else None

    @property
    def quantizes(self) -> bool:
        """Whether the run quantizes: in training (qat) or after it (ptq)."""
        return self.uses("qat") or self.uses("ptq")

    @property
    def pruning(self) -> PruningSettings:
        """The settings of pruning."""
        return PruningSettings(
            sparsity=self.sparsity,
            pattern=self.pattern,
            criterion=self.criterion,
            scope=self.scope,
            max_layer_sparsity=self.max_layer_sparsity,
            schedule=self.schedule,
            warmup=self.prune_warmup,
            end=self.prune_end,
            updates=self.prune_updates,
            regrow=self.regrow,
            embeddings=self.prune_embeddings,
            on_mismatch=self.on_mismatch,
        )

    @property
    def _criterion(self) -> str:
        """What "auto" stands for: fisher, unless there are no gradients or it does not go with the other settings."""
        return self.pruning.chosen_criterion(has_gradients=bool(self.epochs and self.prune_end))

    def pruning_steps(self, steps: int) -> tuple[int, int]:
        """The steps at which pruning starts and ends, in a training of this many; see `PruningSettings.steps`."""
        return self.pruning.steps(steps, self._criterion)

    def validate(self, *, rows: bool = False) -> "Recipe":
        """This recipe, checked and with its methods in order.

        rows: whether the program gives the rows itself. Raises InputError for settings that cannot run.
        """
        parsed = self.from_dict({f.name: getattr(self, f.name) for f in fields(self)})
        for name, example in (("model", "--model small"), ("out", "--out runs/first")):
            if getattr(parsed, name) is None:
                raise InputError(f"no {name} given: say for example {example}")
        if parsed.methods == ("none",):  # like a list with one element
            parsed = dataclasses.replace(parsed, methods=())
        for method in parsed.methods:
            if method not in ALL_METHODS:
                known = ", ".join(ALL_METHODS)
                raise InputError(f"unknown method {quoted(method)}: --methods takes any of {known} by commas, or none")
        if parsed.dataset is not None:
            DatasetName.parse(parsed.dataset)
        if parsed.task is None and parsed.train_file is None and parsed.dataset is None and not rows:
            raise InputError(
                "no task given: name a GLUE task (--task sst2), your own files (--train-file, --validation-file) or a "
                "data set (--dataset)"
            )
        if parsed.uses("kd") and parsed.teacher is None:
            raise InputError("kd needs a teacher: give --teacher (a fine-tuned model), or leave kd out of --methods")
        check_quantization(parsed)
        compared_model(parsed)
        check_class_weights(parsed)
        if parsed.keep == "best" and not (parsed.eval_every and parsed.epochs):
            raise InputError("--keep best chooses among evaluations during training: give --eval-every, or --keep last")
        if parsed.uses("mp"):
            check_pruning(parsed)
        return dataclasses.replace(parsed, methods=tuple(m for m in ALL_METHODS if m in parsed.methods))
