"""Times whole models on one workload: first calls, whose results are compared, then all of them alternately."""

import copy
import functools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

import sparseq
from bench.check import WrongResultError, relative_error, require_close
from bench.console import aligned
from bench.runtimes import OPENVINO_INT8, Runner, forget_compiled, quietly
from bench.whole_models import BASELINE, SAME, packed_layers
from bench.workloads import Batch, Workload
from sparseq.nn import use_fused_encoder
from sparseq.timing import Interval, alternate
from sparseq.train.progress import Phase, Reporter

TOLERANCE = 2e-2  # of our logits, beside the reference backend's
NOISES = 4.0  # times as far as the model's own logits differ by rounding
# Of other runtimes' logits, beside torch's: in fp32, and otherwise. Quantization alone leaves up to 0.3 of some.
FP32_TOLERANCE, PEER_TOLERANCE = 1e-3, 0.5
SETTLE = 0.1  # seconds
LEAST_ROUNDS = 5
# Times as long as fp32: what takes longer does not serve on this processor, and would take most of the time.
SLOWEST = 20.0
TRIES = 3  # calls before that is said: the first may compile something


@dataclass(frozen=True)
class Plan:
    """How much is timed. rounds: at most. seconds: that one workload takes, about, with LEAST_ROUNDS at least. settle:
    see `sparseq.timing.alternate`. slowest: times as long as the baseline, beyond which a candidate is left out."""

    rounds: int
    seconds: float
    settle: float = SETTLE
    slowest: float = SLOWEST

    def rounds_for(self, passes: Sequence[float]) -> int:
        """passes: seconds that one pass of each candidate took."""
        one = sum(passes) + len(passes) * self.settle * 4 / 3
        return min(self.rounds, max(LEAST_ROUNDS, int(self.seconds / one)))


@dataclass
class Trial:
    """Candidates of one checkpoint. models: in this process; the first is the baseline. others: other runtimes, which
    run it too. absent: why some of them cannot be timed on anything."""

    name: str
    models: Mapping[str, nn.Module]
    others: Mapping[str, Runner] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)

    def runners(self) -> dict[str, Runner]:
        """What is timed, by name."""
        own: dict[str, Runner] = {name: _runner(model) for name, model in self.models.items()}
        return own | dict(self.others)


def _runner(model: nn.Module) -> Runner:
    return lambda batch: model(**batch).logits


def check(name: str, model: nn.Module, batch: Batch) -> None:
    """Raises WrongResultError unless the model's logits are those of the reference backend, up to rounding."""
    with torch.inference_mode():
        found = model(**batch).logits
        with sparseq.use_backend("reference"):
            expected, tolerance = model(**batch).logits, TOLERANCE
            if relative_error(found, expected) > TOLERANCE:
                tolerance = max(TOLERANCE, NOISES * _noise(model, batch))
        require_close(f"{name}, logits", found, expected, tolerance)


def _noise(model: nn.Module, batch: Batch) -> float:
    """By how much the logits of the model's own layers differ between two implementations of attention: by rounding
    alone, which deep models with random weights amplify. 0 for a model that has one."""
    layered: Any = use_fused_encoder(copy.deepcopy(model), False)
    if not hasattr(layered, "set_attn_implementation"):
        return 0.0
    logits = []
    for implementation in ("eager", "sdpa"):
        layered.set_attn_implementation(implementation)
        logits.append(layered(**batch).logits)
    return relative_error(*logits)


def measure(
    trial: Trial,
    workload: Workload,
    plan: Plan,
    reporter: Reporter,
    score: Callable[[Tensor], float] | None = None,
) -> dict[str, Any]:
    """A row of the results: the case, `Comparison.as_dict` of seconds a batch, sentences a second, the relative error
    of the baseline's logits where the same model runs otherwise, and with `score` that of logits [sentences, classes].
    """
    forget_compiled()
    for name, model in trial.models.items():
        if packed_layers(model):
            check(name, model, {key: value[:2] for key, value in workload.batches[0].items()})
    run = trial.runners()
    title = f"{trial.name}, {workload.name}"
    with torch.inference_mode():
        with reporter.phase(f"{title}: first calls", len(run)) as phase:
            first, dropped = _first_passes(trial, run, workload, plan.slowest, phase)
        for name, reason in dropped.items():
            reporter.say(f"{name}: left out, {reason}")
        run = {name: run[name] for name in first}
        rounds = plan.rounds_for([one.seconds for one in first.values()])
        with reporter.phase(f"{title}: timing", rounds + 1) as phase:
            times = alternate(
                {name: functools.partial(_pass, one, workload.batches) for name, one in run.items()},
                rounds,
                units=len(workload.batches),
                settle=plan.settle,
                settle_with={name: functools.partial(one, workload.batches[0]) for name, one in run.items()},
                each_round=phase.update,
            )
    size = workload.sentences / len(workload.batches)
    ours = [name for name in run if name in trial.models and name != BASELINE]
    pairs = [(name, BASELINE) for name in run if name != BASELINE]
    pairs += [(name, OPENVINO_INT8) for name in ours if OPENVINO_INT8 in run]
    row = {
        "case": {"model": trial.name, "workload": workload.name, **workload.case},
        **times.as_dict(pairs),
        "sentences_per_second": {name: size / times.time(name).median for name in run},
        "logit_error": {name: one.error for name, one in first.items() if name in trial.others or name in SAME},
        "absent": trial.absent | dropped,
    }
    if score is not None:
        row["scores"] = {name: score(one.logits) for name, one in first.items()}
    return row


def _pass(run: Runner, batches: Sequence[Batch]) -> list[Tensor]:
    return [run(batch) for batch in batches]


@dataclass(frozen=True)
class _First:
    """A candidate's first pass. seconds: of one that builds nothing, about. logits: of all sentences. error: of the
    first batch, beside the baseline's, where that is to be the same."""

    seconds: float
    logits: Tensor
    error: float


def _first_passes(
    trial: Trial, run: Mapping[str, Runner], workload: Workload, slowest: float, phase: Phase
) -> tuple[dict[str, _First], dict[str, str]]:
    """(of every candidate that can be timed, the others' reasons)"""
    passes: dict[str, _First] = {}
    dropped: dict[str, str] = {}
    for number, (name, one) in enumerate(run.items()):
        phase.update(number, name)
        if name in trial.models:
            passes[name] = _first_pass(one, workload, passes.get(BASELINE) if name in SAME else None)
            continue
        try:
            with quietly():
                tolerance = FP32_TOLERANCE if "fp32" in name else PEER_TOLERANCE
                passes[name] = _first_pass(one, workload, passes[BASELINE], (tolerance, slowest))
        except (TooSlowError, WrongResultError) as error:
            dropped[name] = f"at {workload.name} {error}"
        except Exception as error:  # compilers and runtimes raise any kind
            dropped[name] = f"at {workload.name} {type(error).__name__}: {_first_line(error)}"
    phase.update(len(run), "")
    return passes, dropped


class TooSlowError(Exception):
    """A candidate takes much longer than the baseline."""


def _first_pass(
    run: Runner, workload: Workload, baseline: _First | None, limits: tuple[float, float] | None = None
) -> _First:
    """limits: (relative error of logits, times the baseline's time) that the candidate may have at most."""
    batch = workload.batches[0]
    # Of the first batch's time, that of a pass: after all shapes were seen, for each may be compiled.
    cost = sum(one["input_ids"].numel() for one in workload.batches) / batch["input_ids"].numel()
    logits, seconds = _timed(run, batch)
    error = 0.0 if baseline is None else relative_error(logits, baseline.logits[: len(logits)])
    if baseline is not None and limits is not None:
        tolerance, slowest = limits
        require_close("its logits", logits, baseline.logits[: len(logits)], tolerance)
        share = baseline.seconds / cost
        for _ in range(TRIES - 1):
            if seconds > slowest * share:
                seconds = min(seconds, _timed(run, batch)[1])
        if seconds > slowest * share:
            raise TooSlowError(f"a batch took {seconds:.2g} s, {seconds / share:.0f} times as long as {BASELINE}")
    if len(workload.batches) > 1:
        logits = torch.cat(_pass(run, workload.batches))
    return _First(cost * _timed(run, batch)[1], logits, error)


def _timed(run: Runner, batch: Batch) -> tuple[Tensor, float]:
    start = time.perf_counter()
    logits = run(batch)
    return logits, time.perf_counter() - start


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else "no message"


def row_lines(row: Mapping[str, Any]) -> list[str]:
    """A row as a table to print."""
    case, ratios = row["case"], {(ratio["of"], ratio["to"]): ratio for ratio in row["ratios"]}
    scores = row.get("scores", {})
    head = ["", "ms a batch", "sentences/s", f"/ {BASELINE}", f"/ {OPENVINO_INT8}", *(["score"] if scores else [])]
    lines = [head]
    for name, taken in row["seconds"].items():
        times = Interval(**taken)
        cells = [f"{1e3 * times.median:.2f}", f"{row['sentences_per_second'][name]:.0f}"]
        for peer in (BASELINE, OPENVINO_INT8):
            ratio = ratios.get((name, peer))
            cells.append(f"{ratio['median']:.2f} [{ratio['low']:.2f}, {ratio['high']:.2f}]" if ratio else "")
        lines.append([name, *cells, *([f"{scores[name]:.4f}"] if scores else [])])
    title = f"{case['model']}, {case['workload']}, {row['rounds']} rounds"
    return [title, *aligned(lines)]
