"""Means and errors of the report, its tables as CSV, and its axes."""

import csv
import io
import math
import statistics

import numpy as np
import pytest
from made_study import record, study

from sparseq.study.report.axes import MOST, log_ticks
from sparseq.study.report.by_task import task_tables
from sparseq.study.report.configurations import Configurations
from sparseq.study.report.statistics import Estimate, geometric_mean, interval, over_seeds, over_tasks
from sparseq.study.report.table import Column, Noted, Table


def test_the_error_over_seeds_is_that_of_the_mean():
    values = [0.9, 0.92, 0.87, 0.91]
    found = over_seeds(values, rows=100)
    assert found.mean == pytest.approx(statistics.fmean(values), rel=1e-15)
    assert found.error == pytest.approx(statistics.stdev(values) / 2, rel=1e-12) and found.over == "seeds"


def test_the_error_of_one_seed_is_that_of_its_rows_and_says_so():
    assert over_seeds([0.8], rows=400) == Estimate(0.8, pytest.approx(0.02), "rows")
    assert over_seeds([0.8]) == Estimate(0.8)
    assert over_seeds([-0.1], rows=400) == Estimate(-0.1)  # a correlation


@pytest.mark.parametrize(("metric", "error"), [("accuracy", 2.0), ("matthews", None)])
def test_only_accuracy_has_an_error_over_rows(metric, error):
    made = Configurations(study(record(score=0.8, rows=400), metrics={"sst2": metric}))
    (table,) = task_tables(made)
    cell = table.rows[0][[column.name for column in table.columns].index("standard error")]
    assert cell.value == (error and pytest.approx(error)) and cell.mark == ("(rows)" if error else "")


def test_the_mean_over_tasks_takes_their_errors_as_independent():
    assert over_tasks([Estimate(0.8, 0.03, "seeds"), Estimate(0.6, 0.04, "seeds")]) == Estimate(
        pytest.approx(0.7), pytest.approx(0.025), "seeds"
    )
    assert over_tasks([Estimate(0.8, 0.03, "seeds"), Estimate(0.6)]).error is None


def test_geometric_means_leave_out_what_is_missing():
    found = geometric_mean(np.array([[2.0, 8.0, np.nan], [np.nan] * 3]))
    assert found[0] == pytest.approx(4.0) and math.isnan(found[1])


def test_an_interval_needs_most_of_its_draws():
    draws = np.arange(1001.0)
    assert interval(draws) == pytest.approx((25.0, 975.0))
    assert interval(np.where(draws < 500, np.nan, draws)) is not None
    assert interval(np.where(draws < 501, np.nan, draws)) is None


def test_missing_numbers_are_never_zero():
    rows = ((None, Noted(None, "not reached")), (math.nan, Noted(None)), (0.0, Noted(0.0)))
    table = Table("t", "T", (Column("a", "MB", 1), Column("b", digits=2, noted=True)), rows)
    assert table.texts() == [["-", "not reached"], ["-", "-"], ["0.0", "0.00"]]
    assert table.as_csv() == "a (MB),b,b note\n,,not reached\n,,\n0.0,0.0,\n"


@pytest.mark.parametrize(
    ("number", "shown"), [(0.0, "0.0"), (0.0204, "0.02"), (-0.003, "-0.003"), (0.06, "0.1"), (1234.56, "1,234.6")]
)
def test_a_small_number_is_not_shown_as_zero(number, shown):
    assert Column("a", "MB", 1).text(number) == shown


def test_csv_holds_any_name_and_no_formula():
    names = ["=1+1", "+a", "-b", "@c", 'say "x", y', "two\nlines", "\x1b[31m", "plain"]
    table = Table("t", "T", (Column("name"),), tuple((name,) for name in names))
    read = [row[0] for row in csv.reader(io.StringIO(table.as_csv()))][1:]
    assert read == ["'=1+1", "'+a", "'-b", "'@c", 'say "x", y', "two\\nlines", "\\x1b[31m", "plain"]


def test_a_table_of_a_task_has_dashes_where_nothing_was_measured():
    (table,) = task_tables(
        Configurations(study(record(score=0.8), record(seed=1), record(size="small", state="failed")))
    )
    done, failed = table.texts()
    assert done[3] == "1 of 2" and failed[3] == "0 of 1"
    assert set(failed[4:]) == {"-"} and "0.0" not in ",".join(failed)


@pytest.mark.parametrize("low", [0.0013, 0.5, 3.1, 17.0, 990.0, 3e6])
@pytest.mark.parametrize("wide", [1.001, 1.4, 3.0, 11.0, 90.0, 3000.0, 1e9])
def test_every_axis_has_ticks_but_not_many(low, wide):
    ticks = log_ticks(low, low * wide)
    assert 2 <= len(ticks) <= MOST and ticks == sorted(set(ticks))
    assert all(low <= tick <= low * wide * (1 + 1e-12) for tick in ticks)
