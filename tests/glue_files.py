"""GLUE's nine tasks in their classic layout: small files, true to the form of the originals."""

from pathlib import Path

QUOTED = 'a "quote that never closes'
PAIRS = [("first one", QUOTED), ("second one", "its pair"), ("third one", "another")]

PARSES = [f"sentence{number}_{kind}" for kind in ("binary_parse", "parse") for number in (1, 2)]
MNLI_HEADER = ["index", "promptID", "pairID", "genre", *PARSES, "sentence1", "sentence2", "label1"]
STSB_HEADER = [
    "index",
    "genre",
    "filename",
    "year",
    "old_index",
    "source1",
    "source2",
    "sentence1",
    "sentence2",
    "score",
]


def write_tsv(path: Path, *rows: tuple[object, ...] | list[str], bom: bool = False, end: str = "\n") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join("\t".join(map(str, row)) + end for row in rows)
    path.write_bytes(text.encode("utf-8-sig" if bom else "utf-8"))


def pairs(labels: list[object]) -> list[tuple[object, ...]]:
    return [(index, *pair, label) for index, (pair, label) in enumerate(zip(PAIRS, labels, strict=True))]


def write_glue(root: Path) -> Path:
    """A folder with all nine tasks: three rows a file, training, development and test."""
    for name in ("train.tsv", "dev.tsv"):
        write_tsv(
            root / "CoLA" / name, *[("gj04", label, "*", text) for (text, _), label in zip(PAIRS, "101", strict=True)]
        )
        write_tsv(root / "SST-2" / name, ("sentence", "label"), (QUOTED, 1), ("dull ", 0), ("fine ", 1))
        mrpc = [(label, 10 + row, 20 + row, *pair) for row, (pair, label) in enumerate(zip(PAIRS, "101", strict=True))]
        write_tsv(root / "MRPC" / name, ("Quality", "#1 ID", "#2 ID", "#1 String", "#2 String"), *mrpc, bom=True)
        write_tsv(
            root / "QQP" / name,
            ("id", "qid1", "qid2", "question1", "question2", "is_duplicate"),
            *[(row, 7, 8, *pair, label) for row, (pair, label) in enumerate(zip(PAIRS, "101", strict=True))],
        )
        sts = [
            (row, *"gfyoss", *pair, value) for row, (pair, value) in enumerate(zip(PAIRS, (5.0, 0, 3.8), strict=True))
        ]
        write_tsv(root / "STS-B" / name, STSB_HEADER, *sts)
        entailment = ["entailment", "not_entailment", "entailment"]
        write_tsv(root / "QNLI" / name, ("index", "question", "sentence", "label"), *pairs([*entailment]))
        write_tsv(root / "RTE" / name, ("index", "sentence1", "sentence2", "label"), *pairs([*entailment]), end="\r\n")
        write_tsv(root / "WNLI" / name, ("index", "sentence1", "sentence2", "label"), *pairs([*"101"]))
    gold = ["neutral", "entailment", "contradiction"]
    rows = [(row, *"pqgabcd", *pair, label, label) for row, (pair, label) in enumerate(zip(PAIRS, gold, strict=True))]
    write_tsv(root / "MNLI" / "train.tsv", [*MNLI_HEADER, "gold_label"], *rows)
    for name in ("dev_matched.tsv", "dev_mismatched.tsv"):
        wide = [(*row[:-1], "l2", "l3", "l4", "l5", row[-1]) for row in rows]
        write_tsv(root / "MNLI" / name, [*MNLI_HEADER, "label2", "label3", "label4", "label5", "gold_label"], *wide)
    _write_tests(root)
    return root


def _write_tests(root: Path) -> None:
    """The test files: an index in place of the label, and a header in CoLA's too."""
    sentences = [(row, text) for row, (text, _) in enumerate(PAIRS)]
    write_tsv(root / "CoLA" / "test.tsv", ("index", "sentence"), *sentences)
    write_tsv(root / "SST-2" / "test.tsv", ("index", "sentence"), (0, QUOTED), (1, "dull "), (2, "fine "))
    mrpc = [(row, 10 + row, 20 + row, *pair) for row, pair in enumerate(PAIRS)]
    write_tsv(root / "MRPC" / "test.tsv", ("index", "#1 ID", "#2 ID", "#1 String", "#2 String"), *mrpc, bom=True)
    numbered = [(row, *pair) for row, pair in enumerate(PAIRS)]
    write_tsv(root / "QQP" / "test.tsv", ("id", "question1", "question2"), *numbered)
    sts = [(row, *"gfyoss", *pair) for row, pair in enumerate(PAIRS)]
    write_tsv(root / "STS-B" / "test.tsv", STSB_HEADER[:-1], *sts)
    write_tsv(root / "QNLI" / "test.tsv", ("index", "question", "sentence"), *numbered)
    for name in ("RTE", "WNLI"):
        write_tsv(root / name / "test.tsv", ("index", "sentence1", "sentence2"), *numbered)
    for first, name in ((0, "test_matched.tsv"), (9847, "test_mismatched.tsv")):
        rows = [(first + row, *"pqgabcd", *pair) for row, pair in enumerate(PAIRS)]
        write_tsv(root / "MNLI" / name, MNLI_HEADER[:-1], *rows)
