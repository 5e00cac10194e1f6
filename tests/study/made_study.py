"""Studies made up for tests: records with chosen numbers, and a plausible whole study."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sparseq.study.records import Latency, Record, StudyResults

DATA = Path(__file__).parent.parent / "data" / "movva_2022.json"
PAPER: dict[str, Any] = json.loads(DATA.read_text(encoding="utf-8"))
METHOD_SETS = [(), ("qat",), ("kd",), ("mp",), ("qat", "kd"), ("qat", "mp"), ("kd", "mp"), ("qat", "kd", "mp")]

# Parameters, the share of them in the encoder's linear layers, and ms a sentence of a plain model.
SIZES = {
    "base": (109.5e6, 0.776, 30.0),
    "medium": (41.4e6, 0.608, 10.0),
    "small": (28.8e6, 0.437, 5.2),
    "mini": (11.2e6, 0.282, 1.6),
}


def record(
    task: str = "sst2",
    size: str = "base",
    methods: tuple[str, ...] = (),
    seed: int = 0,
    score: float | None = None,
    *,
    settings: Mapping[str, Any] | None = None,
    state: str | None = None,
    ms: float | None = None,
    grid: str = "grid",
    **rest: Any,
) -> Record:
    """A cell: done if it has a score, otherwise missing. ms: of batch 1, beside a teacher that takes 10 ms."""
    state = state or ("missing" if score is None else "done")
    settings = dict(settings or {})
    name = "-".join([task, size, *(methods or ("none",)), *map(str, settings.values()), str(seed)])
    if ms is not None:
        rest["latency"] = {"1": latency(ms, 10.0)}
        rest = {"processor": "a processor", "threads": 1} | rest
    return Record(name, (grid,), task, size, methods, seed, settings, state, score=score, **rest)


def latency(ms: float, teacher: float) -> Latency:
    speedup = teacher / ms
    return Latency(ms, 0.98 * ms, 1.02 * ms, speedup, 0.97 * speedup, 1.03 * speedup)


def study(*records: Record, metrics: Mapping[str, str] | None = None, **rest: Any) -> StudyResults:
    """A study of these cells; sizes and tasks in the order in which they occur."""
    sizes = tuple(dict.fromkeys(one.size for one in records))
    tasks = tuple(dict.fromkeys(one.task for one in records))
    metrics = dict.fromkeys(tasks, "accuracy") if metrics is None else dict(metrics)
    return StudyResults("made-up", sizes, tasks, metrics, tuple(records), **rest)


def paper_bytes(size: str, methods: tuple[str, ...], sparsity: float | None) -> float:
    """4 bytes for each parameter that is not zero, 1 with QAT (Movva et al. 2022, as derived from its figure)."""
    known = PAPER["sizes"][size]
    kept = known["parameters"] * (1 - known["encoder_linear_share"] * (sparsity or 0.0))
    return kept * (1 if "qat" in methods else 4)


def paper_study() -> StudyResults:
    """The mean GLUE scores of the paper's Figure 1, as a study of one task."""
    records = []
    for size, of_size in PAPER["figure_1"].items():
        for name, scores in of_size.items():
            methods = () if name == "none" else tuple(name.split("+"))
            sparsities = PAPER["sparsities"] if "mp" in methods else [None]
            for sparsity, score in zip(sparsities, scores, strict=True):
                settings = {} if sparsity is None else {"sparsity": sparsity}
                bytes_ = round(paper_bytes(size, methods, sparsity))
                records.append(record("glue", size, methods, 0, score / 100, settings=settings, paper_bytes=bytes_))
    return study(*records, metrics={"glue": "mean"})


def plausible(tasks: tuple[str, ...] = ("sst2", "rte"), seeds: int = 3, *, held_out: bool = True) -> StudyResults:
    """Tasks x 4 sizes x 8 sets of methods x seeds, with pruning at two sparsities and some cells failed or missing."""
    records = list(_plausible(tasks, seeds, held_out))
    return StudyResults(
        "made-up",
        tuple(SIZES),
        tasks,
        dict.fromkeys(tasks, "accuracy"),
        tuple(records),
        {"epochs": 3.0, "pattern": "4x4", "max_length": 128},
        {"sparseq": "0.1.0", "torch": "2.13.0", "processors": ["a processor"], "date": "2026-11-27"},
    )


def _plausible(tasks: tuple[str, ...], seeds: int, held_out: bool) -> Iterator[Record]:
    generator = np.random.default_rng(5)
    for task in tasks:
        top = {"sst2": 0.925, "rte": 0.685}.get(task, 0.85)
        rows = {"sst2": 872, "rte": 277}.get(task, 1000)
        for number, (size, (parameters, share, own_ms)) in enumerate(SIZES.items()):
            for methods in METHOD_SETS:
                for sparsity in (0.4, 0.6) if "mp" in methods else (None,):
                    level = top - [0.0, 0.022, 0.034, 0.062][number] * (0.6 if "kd" in methods else 1.0)
                    level -= 0.004 * ("qat" in methods) + 0.02 * (sparsity or 0.0) - 0.006 * ("kd" in methods)
                    kept = parameters * (1 - share * (sparsity or 0.0))
                    each = 1 if "qat" in methods else 4
                    ms = own_ms * (0.42 if "qat" in methods else 1.0) * (1 - 0.45 * (sparsity or 0.0))
                    for seed in range(seeds):
                        chance = generator.random()
                        score = round((level + generator.normal(0, 0.004)) * rows) / rows
                        known = {
                            "settings": {} if sparsity is None else {"sparsity": sparsity},
                            "is_teacher": size == "base" and not methods,
                        }
                        if chance < 0.04 and methods:
                            reason = "memory ran out: give a smaller --batch-size"
                            yield record(task, size, methods, seed, state="failed", reason=reason, **known)
                        elif chance < 0.08 and methods:
                            yield record(task, size, methods, seed, **known)
                        else:
                            yield record(
                                task, size, methods, seed, score, **known,
                                held_out_score=level + generator.normal(0, 0.006) if held_out else None,
                                rows=rows, sparsity_reached=sparsity, paper_bytes=round(kept * each),
                                stored_bytes=round(kept * each * 1.02 + (parameters * share / 128 if sparsity else 0)),
                                parameters=round(parameters), nonzero=round(kept), seconds=20 * own_ms,
                                latency={
                                    "1": latency(ms * generator.normal(1, 0.01), 30.0),
                                    "32": latency(0.4 * ms * generator.normal(1, 0.01), 11.0),
                                },
                                processor="a processor", threads=2,
                            )  # fmt: skip
