"""The tables of budgets: each names the recipe that the report's rule recommends, with a command that can be given."""

import dataclasses
import re
import shlex
from typing import Any

import pytest

from bench import budgets
from bench.common import ROOT
from sparseq.cli.entry import command_parser
from sparseq.study.records import Latency, Record, StudyResults


def record(size: str, held_out: float, mb: float, ms: float, grid: str, **more: Any) -> Record:
    latency = {"1": Latency(ms, ms, ms, 20 / ms, 20 / ms, 20 / ms)}
    given = {"methods": ("qat",), "settings": {"bits": 4}, "recipe": {"model": "MODEL", "task": "sst2"}, **more}
    return Record(
        f"{size}-{grid}", (grid,), "sst2", size, seed=0, state="done", score=held_out - 0.01, held_out_score=held_out,
        rows=100, stored_bytes=round(mb * 1e6), latency=latency, processor="p", threads=1, **given,
    )  # fmt: skip


TEACHER = record("T", 0.90, 90, 20.0, "plain", methods=(), settings={}, is_teacher=True)
# Of the published study's grids the first starts from the teacher, and the second from the pretrained model.
OTHERS = (
    record("A", 0.88, 24, 2.9, "after training"),
    record("B", 0.89, 9, 1.9, "plain"),
    record("C", 0.85, 4.9, 1.1, "plain"),
)
RESULTS = StudyResults("minilm-best", ("T", "A", "B", "C"), ("sst2",), {"sst2": "accuracy"}, (TEACHER, *OTHERS))


@pytest.fixture
def lines() -> list[str]:
    return budgets.budgets("budgets-sst2", RESULTS).splitlines()


def test_each_pair_of_limits_has_the_recipe_with_the_best_held_out_score_and_its_distance(lines: list[str]) -> None:
    start = lines.index("| stored, at most | any time | 3 ms | 2 ms | 1.5 ms | 1.2 ms |")
    assert lines[start + 2 : start + 8] == [
        "| any size | the teacher | 1 (-1.00) | 1 (-1.00) | 2 (-5.00) | 2 (-5.00) |",
        "| 25 MB | 1 (-1.00) | 1 (-1.00) | 1 (-1.00) | 2 (-5.00) | 2 (-5.00) |",
        "| 17.5 MB | 1 (-1.00) | 1 (-1.00) | 1 (-1.00) | 2 (-5.00) | 2 (-5.00) |",
        "| 10 MB | 1 (-1.00) | 1 (-1.00) | 1 (-1.00) | 2 (-5.00) | 2 (-5.00) |",
        "| 6 MB | 2 (-5.00) | 2 (-5.00) | 2 (-5.00) | 2 (-5.00) | 2 (-5.00) |",
        "| 5 MB | 2 (-5.00) | 2 (-5.00) | 2 (-5.00) | 2 (-5.00) | 2 (-5.00) |",
    ]


def test_a_typical_budget_has_its_recipe_or_why_there_is_none(
    lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert sum(line.startswith("| at most") for line in lines) == len(budgets.TYPICAL)
    monkeypatch.setattr(budgets, "TYPICAL", (budgets.Limits(max_drop=1, max_mb=10), budgets.Limits(max_mb=1)))
    text = budgets.budgets("budgets-sst2", RESULTS)
    assert "| at most 1 point below the teacher, at most 10 MB stored | 1: B, QAT, bits 4 |" in text
    assert "| at most 1 MB stored | none: no configuration meets stored size 1 MB |" in text


def test_a_recipe_has_its_numbers_beside_the_teacher_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budgets, "TYPICAL", (budgets.Limits(max_mb=10),))
    text = budgets.budgets("budgets-sst2", RESULTS)
    assert "|  | the teacher: T, none | 89.00 |  | 90.00 | 90.00 (1/1.0) | 20.00 (1.0x) |" in text
    assert "| 1 | B, QAT, bits 4 | 88.00 | -1.00 ± 4.51 | 89.00 | 9.00 (1/10.0) | 1.90 (10.5x) |" in text


def test_a_command_names_the_model_that_its_grid_starts_from() -> None:
    started = budgets.started(RESULTS, "minilm_best.toml")
    assert [one.recipe["model"] for one in started.records] == ["MODEL", "TEACHER", "MODEL", "MODEL"]
    assert "sparseq compress --model MODEL --methods qat --task sst2 --out OUT" in budgets.budgets(
        "budgets-sst2", RESULTS
    )


def test_limits_that_nothing_meets_have_no_line_and_untimed_models_no_columns_of_times() -> None:
    untimed = dataclasses.replace(
        RESULTS, records=tuple(dataclasses.replace(one, latency={}) for one in (TEACHER, OTHERS[0]))
    )
    text = budgets.budgets("budgets-sst2-untimed", untimed)
    assert "| stored, at most | any time |\n" in text and "| 25 MB | 1 (-2.00) |" in text
    assert "17.5 MB" not in text and "ms a sentence" not in text


def test_every_command_of_the_page_can_be_given() -> None:
    page = (ROOT / "docs/how-to/which-combination.md").read_text(encoding="utf-8")
    commands = re.findall(r"```text\n(sparseq .*?)```", page, re.DOTALL)
    assert len(commands) > 10 and set(budgets.TABLES) == set(re.findall(r"<!-- table: (\S+) -->", page))
    for command in commands:
        words = shlex.split(command.replace("\\\n", " "))
        given = command_parser().parse_args(words[1:])
        assert words[1] == "compress" and given.model in ("MODEL", "TEACHER", "BASELINE") and given.out == "OUT"
