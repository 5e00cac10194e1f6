"""The claims of `findings`, and the comparisons that they rest on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Configured:
    """A configuration of a study, without its size: methods, and the settings that vary in the study."""

    methods: tuple[str, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        methods = "+".join(method.upper() for method in self.methods) or "plain"
        return ", ".join([methods, *(f"{name.replace('_', ' ')} {value}" for name, value in self.settings.items())])


@dataclass(frozen=True)
class Comparison:
    """One configuration beside another.

    sizes: pairs of names, of the first's and the second's; without any, each size of the study with itself, where it
    has both. expected: what the claim says of the first: "better" or "worse" than the second, or within how many points
    of it; a negative number, how many points it loses at most; None says nothing.
    """

    study: str
    first: Configured
    second: Configured
    expected: str | float | None = None
    sizes: tuple[tuple[str, str], ...] = ()
    task: str = "sst2"

    def places(self, sizes: Sequence[str]) -> list[tuple[tuple[str, Configured], tuple[str, Configured]]]:
        """(size, configuration) of the first and of the second."""
        chosen = self.sizes or tuple((size, size) for size in sizes)
        return [((one, self.first), (other, self.second)) for one, other in chosen]

    def name(self, number: int) -> str:
        """The first (0) or second (1) configuration with its sizes, for a table."""
        sizes = ", ".join(dict.fromkeys(pair[number] for pair in self.sizes))
        return ", ".join(part for part in (sizes, str((self.first, self.second)[number])) if part)


@dataclass(frozen=True)
class Finding:
    """claim: one sentence. comment: what it means for a user, or how far it holds."""

    claim: str
    comparisons: tuple[Comparison, ...]
    comment: str = ""


def configured(methods: str, **settings: Any) -> Configured:
    """methods: separated by commas, or none."""
    return Configured(tuple(methods.split(",")) if methods != "none" else (), settings)


def pruned(methods: str, pattern: str, **more: Any) -> Configured:
    """To 60 %, by magnitude unless `more` says otherwise."""
    return configured(methods, **{"sparsity": 0.6, "pattern": pattern, "criterion": "magnitude", **more})


STUDY, BEST, WHICH_LAYERS = "minilm", "minilm-best", "minilm-layers"
PLAIN, QAT, KD, QAT_KD = (configured(methods) for methods in ("none", "qat", "kd", "qat,kd"))
PTQ, PTQ_4 = configured("ptq", epochs=0.0), configured("ptq", bits=4, epochs=0.0)
PTQ_4_MSE = configured("ptq", bits=4, scale="mse", epochs=0.0)
STATIC = configured("ptq", activation="static", epochs=0.0)
STATIC_RANDOM = configured("ptq", activation="static", calibration_data="random", epochs=0.0)
SMALL = configured("qat,kd", vocabulary="seen", bits=4)
SMALL_PRUNED = configured("qat,kd,mp", vocabulary="seen", bits=4, sparsity=0.6)
SMALL_HALF = configured("qat,kd,mp", vocabulary="seen", bits=4, sparsity=0.5)
SMALL_6 = configured("qat,kd", vocabulary="seen", bits=4, epochs=1.0, lr=5e-5)
TEACHER = configured("none", epochs=2.0)
FISHER_BLOCKS, FISHER_SINGLE = (
    {methods: pruned(methods, pattern, criterion="fisher") for methods in ("mp", "qat,kd,mp")}
    for pattern in ("4x4", "unstructured")
)
SIX, FEWER = (("6L", "6L"),), (("4L", "4L"), ("3L", "3L"), ("2L", "2L"))

FINDINGS = (
    Finding(
        "Quantization to 8 bits, in training or after it, costs less than a point",
        (
            Comparison(STUDY, QAT, PLAIN, 1.0),
            Comparison(STUDY, PTQ, PLAIN, 1.0),
            Comparison(STUDY, QAT, PTQ, 1.0),
        ),
    ),
    Finding(
        "4 bits after training cost six layers less than 2.5 points",
        (
            Comparison(STUDY, PTQ_4, PLAIN, 2.5, SIX),
            Comparison(STUDY, PTQ_4, PLAIN, None, FEWER),
        ),
        "Fewer layers seem to lose more, by about two standard errors.",
    ),
    Finding(
        "Fitting scales of 4 bits to the least squared error changes that by less than a point",
        (Comparison(STUDY, PTQ_4_MSE, PTQ_4, 1.0),),
    ),
    Finding(
        "Static ranges need no data: random tokens do as well as training rows, within 1.5 points",
        (
            Comparison(STUDY, STATIC_RANDOM, STATIC, 1.5),
            Comparison(STUDY, STATIC, PTQ, 2.0),
        ),
    ),
    Finding(
        "Removing 60 % by magnitude costs more in 4 x 4 blocks than weight by weight",
        (
            Comparison(STUDY, pruned("mp", "4x4"), PLAIN, "worse"),
            Comparison(STUDY, pruned("mp", "unstructured"), PLAIN, "worse"),
            Comparison(STUDY, pruned("qat,kd,mp", "4x4"), pruned("qat,kd,mp", "unstructured"), "worse"),
        ),
    ),
    Finding(
        "By magnitude, blocks lose to fewer layers that take as long",
        (
            Comparison(STUDY, pruned("qat,kd,mp", "4x4"), QAT_KD, "worse", (("6L", "4L"),)),
            Comparison(STUDY, pruned("qat,kd,mp", "4x4"), QAT_KD, None, (("4L", "3L"), ("3L", "2L"))),
        ),
    ),
    Finding(
        "Ranking by the loss that a removal adds keeps more than ranking by magnitude, most of all in blocks",
        (
            Comparison(STUDY, FISHER_BLOCKS["mp"], pruned("mp", "4x4"), "better"),
            Comparison(STUDY, FISHER_BLOCKS["qat,kd,mp"], pruned("qat,kd,mp", "4x4"), "better"),
            Comparison(STUDY, FISHER_SINGLE["mp"], pruned("mp", "unstructured"), "better"),
            Comparison(STUDY, FISHER_SINGLE["qat,kd,mp"], pruned("qat,kd,mp", "unstructured"), "better"),
            Comparison(STUDY, FISHER_BLOCKS["mp"], PLAIN, "worse"),
            Comparison(STUDY, FISHER_BLOCKS["mp"], FISHER_SINGLE["mp"], 2.0),
        ),
        "So it is what `sparseq compress --methods mp` does unless told otherwise.",
    ),
    Finding(
        "By the loss that a removal adds, six pruned layers lose at most 2 points to four whole ones that take as long",
        (
            Comparison(BEST, SMALL_HALF, SMALL, -2.0, (("6L", "4L"),)),
            Comparison(BEST, SMALL_PRUNED, SMALL, -2.0, (("6L", "4L"),)),
            Comparison(BEST, SMALL_HALF, SMALL, None, (("6L", "3L"),)),
            Comparison(BEST, SMALL_PRUNED, SMALL, None, (("4L", "3L"),)),
            Comparison(STUDY, FISHER_BLOCKS["qat,kd,mp"], QAT_KD, -2.0, (("6L", "4L"), ("4L", "3L"))),
        ),
        "The first four are trained on all rows, one run each. Six layers of which half is removed seem to be better "
        "than four whole ones, by about two standard errors. Three whole ones are faster: on the front of accuracy and "
        "time stand both.",
    ),
    Finding(
        "Distillation from the same 1,200 rows changes less than 1.5 points",
        (Comparison(STUDY, KD, PLAIN, 1.5), Comparison(STUDY, QAT_KD, QAT, 1.5)),
        "These are 152 steps. The paper's students have more of them, and augmented rows.",
    ),
    Finding(
        "Of few layers the last one has to be among those that are kept",
        (
            Comparison(WHICH_LAYERS, PLAIN, PLAIN, "better", (("1L-5", "1L-0"),)),
            Comparison(WHICH_LAYERS, PLAIN, PLAIN, None, (("2L-05", "2L-03"),)),
            Comparison(WHICH_LAYERS, PLAIN, PLAIN, None, (("3L-025", "3L-024"),)),
            Comparison(WHICH_LAYERS, PLAIN, PLAIN, None, (("4L-0235", "4L-0134"),)),
        ),
        "`--layers N` keeps those of the first column. They were chosen by held-out rows (see the study's report).",
    ),
    Finding(
        "Dropping the tokens that no training row has costs less than 2 points and a third of the bytes",
        (
            Comparison(
                BEST,
                configured("ptq", vocabulary="seen", scale="mse", epochs=0.0),
                configured("ptq", scale="mse", epochs=0.0),
                2.0,
            ),
            Comparison(
                BEST,
                configured("ptq", vocabulary="seen", bits=4, scale="mse", epochs=0.0),
                configured("ptq", bits=4, scale="mse", epochs=0.0),
                2.0,
            ),
        ),
    ),
    Finding(
        "Trained on all rows with 4 bits, six layers, pruned or not, and three stay within 3 points of the teacher",
        (
            Comparison(BEST, SMALL_6, TEACHER, 3.0, SIX),
            Comparison(BEST, SMALL_HALF, TEACHER, 3.0, SIX),
            Comparison(BEST, SMALL_PRUNED, TEACHER, 3.0, SIX),
            Comparison(BEST, SMALL, TEACHER, 3.0, (("3L", "6L"),)),
        ),
    ),
)
