"""The goals of whole models on a CPU, and how results of `bench.studies.model` compare with them, in Markdown."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.common import read_results
from bench.render import NO_RESULTS, caption, interval, table
from bench.runtimes import OPENVINO_INT8
from bench.whole_models import DENSE, SIZES, sparse_name
from bench.workloads import real_name, shape_name, sst2_dev

# Results of both sizes, or of BERT-base's shape in a run of its own.
NAMES = ("model", "model_base")
# The instructions that the goals are stated for, on 2 cores that do nothing else.
STATED_FOR = "avx512_vnni"
_MINILM, _BASE = SIZES["minilm"].name, SIZES["base"].name
_REAL = real_name(sst2_dev().name)


@dataclass(frozen=True)
class AtMost:
    """time(candidate) / time(OpenVINO's int8) of one model and workload is to be at most `wanted`."""

    model: str
    workload: str
    candidate: str
    wanted: float


GOALS = (
    AtMost(_MINILM, shape_name(8, 128), DENSE, 0.85),
    AtMost(_MINILM, shape_name(8, 128), sparse_name(0.8), 0.45),
    AtMost(_MINILM, shape_name(8, 128), sparse_name(0.9), 0.38),
    AtMost(_MINILM, shape_name(1, 128), DENSE, 0.80),
    AtMost(_MINILM, shape_name(1, 128), sparse_name(0.8), 0.50),
    AtMost(_MINILM, shape_name(1, 16), DENSE, 0.60),
    AtMost(_MINILM, shape_name(1, 16), sparse_name(0.8), 0.45),
    AtMost(_MINILM, _REAL, DENSE, 0.55),
    AtMost(_MINILM, _REAL, sparse_name(0.8), 0.30),
    AtMost(_BASE, shape_name(8, 128), DENSE, 0.88),
    AtMost(_BASE, shape_name(8, 128), sparse_name(0.8), 0.38),
)


def model_goals(folder: Path | None = None) -> str:
    """A table for each machine: a line a goal, the ratio that was measured, and whether it was met where the processor
    has the instructions that the goals are stated for."""
    parts = []
    for result in (result for name in NAMES for result in read_results(name, folder, "cpu")):
        judged = STATED_FOR in result["machine"]["flags"]
        found = [(goal, ratio) for goal in GOALS if (ratio := _ratio(goal, result["rows"])) is not None]
        if found:
            head = [f"time / time of {OPENVINO_INT8}", "at most", "measured"]
            lines = ([_text(goal), f"{goal.wanted:.2f}", _measured(goal, ratio, judged)] for goal, ratio in found)
            parts.append(f"{caption(result)}\n{table(head, lines)}")
    return "\n".join(parts) or NO_RESULTS


def _ratio(goal: AtMost, rows: list[Mapping[str, Any]]) -> Mapping[str, float] | None:
    for row in rows:
        if (row["case"].get("model"), row["case"].get("workload")) == (goal.model, goal.workload):
            for ratio in row["ratios"]:
                if (ratio["of"], ratio["to"]) == (goal.candidate, OPENVINO_INT8):
                    found: Mapping[str, float] = ratio
                    return found
    return None


def _text(goal: AtMost) -> str:
    return f"{goal.model}, {goal.workload}: {goal.candidate}"


def _measured(goal: AtMost, ratio: Mapping[str, float], judged: bool) -> str:
    verdict = (" met" if ratio["median"] <= goal.wanted else " missed") if judged else ""
    return f"{interval(ratio)}{verdict}"
