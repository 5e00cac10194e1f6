"""Pareto fronts, the question of pruned models, and the recommended recipe."""

import itertools
import math

import numpy as np
import pytest
from made_study import latency, record, study

from sparseq.study.records import Record
from sparseq.study.report.configurations import Configurations
from sparseq.study.report.fronts import front, front_table, not_dominated, pruned_members, pruning_table
from sparseq.study.report.recipe import advice, command
from sparseq.study.report.recommend import Limits, recommend
from sparseq.study.report.reduction import STORED_BYTES, latency_cost

MS = latency_cost("1")


def brute_force(scores, costs):
    """By the definition, over all pairs."""
    points = [(-score, *cost) for score, cost in zip(scores, costs, strict=True)]
    return [
        i
        for i, one in enumerate(points)
        if not any(
            all(a <= b for a, b in zip(other, one, strict=True)) and any(a < b for a, b in zip(other, one, strict=True))
            for other in points
        )
    ]


@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_fronts_are_those_of_all_pairs(dimensions):
    generator = np.random.default_rng(dimensions)
    for count in (0, 1, 2, 30):
        # Few values, so that many are equal.
        scores = generator.integers(0, 6, count).astype(float).tolist()
        costs = generator.integers(0, 6, (count, dimensions)).astype(float).tolist()
        assert not_dominated(scores, costs) == brute_force(scores, costs)


def models(*points):
    """Configurations of one task and size each: (methods, score, ms, MB)."""
    return Configurations(
        study(
            *(
                record("sst2", f"size {n}", methods, 0, score, ms=ms, rows=400, stored_bytes=megabytes * 10**6)
                for n, (methods, score, ms, megabytes) in enumerate(points)
            )
        )
    )


def names(items):
    return [item.size for item in items]


def test_a_front_leaves_out_what_was_not_measured():
    made = models(((), 0.9, 8.0, 100), ((), 0.95, None, 50), ((), None, 1.0, 1), (("mp",), 0.8, 2.0, 60))
    assert names(front(made.items, [MS])) == ["size 3", "size 0"]
    assert names(front(made.items, [STORED_BYTES])) == ["size 1"]
    assert names(front(made.items, [STORED_BYTES, MS])) == ["size 3", "size 0"]
    table = front_table(made)
    assert table.column("size") == ["size 0", "size 1", "size 3"]
    assert table.column("score, MB") == [False, True, False]


def test_a_pruned_member_is_compared_with_the_best_dense_model_that_is_as_fast():
    made = models(((), 0.90, 8.0, 100), ((), 0.85, 4.0, 50), (("qat",), 0.84, 3.0, 20), (("qat", "mp"), 0.87, 4.0, 15))
    (one,) = pruned_members(made.items, MS)
    assert one.dense.size == "size 1" and one.gain == pytest.approx(2.0)
    by_hand = 100 * math.sqrt(0.87 * 0.13 / 400 + 0.85 * 0.15 / 400)
    assert one.error == pytest.approx(by_hand, rel=1e-12)
    ((_, _, _, _, dense, _, gain, error),) = pruning_table(made).rows
    assert dense == "size 1, none" and gain == one.gain and error.mark == "(rows)"


def test_there_may_be_no_dense_model_as_fast_or_no_pruned_member():
    fastest = models(((), 0.9, 8.0, 100), (("mp",), 0.8, 4.0, 60))
    (one,) = pruned_members(fastest.items, MS)
    assert one.dense is None and one.gain is None and one.error is None
    assert "no dense model is as fast" in pruning_table(fastest).rows[0]
    beaten = models(((), 0.9, 8.0, 100), (("mp",), 0.8, 9.0, 60))
    assert pruned_members(beaten.items, MS) == []
    assert "no pruned model is on the front" in pruning_table(beaten).rows[0][2]


def cell(size, score, held_out, ms=1.0, megabytes=10, methods=("qat",), **rest) -> Record:
    return record(
        "sst2", size, methods, rest.pop("seed", 0), score, held_out_score=held_out, ms=ms, rows=100,
        stored_bytes=round(megabytes * 1e6), **rest,
    )  # fmt: skip


TEACHER = cell("base", 0.93, 0.92, 10.0, 400, (), is_teacher=True)


def recommended(*cells, **limits):
    return recommend(Configurations(study(TEACHER, *cells)), "sst2", Limits(**limits))


def test_the_held_out_score_chooses_and_not_the_one_that_is_reported():
    chosen = recommended(cell("small", 0.99, 0.90), cell("mini", 0.80, 0.91), max_mb=100).chosen
    assert chosen.size == "mini"


def test_each_limit_is_kept():
    cells = [cell("a", 0.9, 0.919, 9.0, 300), cell("b", 0.9, 0.915, 2.0, 300), cell("c", 0.9, 0.910, 1.0, 20)]
    assert recommended(*cells, max_drop=1, max_ms=9.0, max_mb=300).chosen.size == "a"
    assert recommended(*cells, max_drop=1, max_ms=2.0).chosen.size == "b"
    assert recommended(*cells, max_drop=1, max_mb=20).chosen.size == "c"
    assert recommended(*cells, max_drop=0.5, max_mb=20).chosen is None


def test_of_equal_held_out_scores_the_fewest_bytes_win():
    cells = [cell("a", 0.9, 0.91, megabytes=20), cell("b", 0.9, 0.91, megabytes=10), cell("c", 0.9, 0.9, megabytes=1)]
    assert recommended(*cells, max_mb=100).chosen.size == "b"
    assert all(recommended(*order, max_mb=100).chosen.size == "b" for order in itertools.permutations(cells))


def test_where_nothing_meets_the_limits_it_says_which_fails_and_what_is_nearest():
    cells = [cell("a", 0.9, 0.919, 4.0, 100), cell("b", 0.9, 0.915, 2.0, 50), cell("c", 0.9, 0.5, 0.5, 5)]
    found = recommended(*cells, max_drop=1, max_ms=1.0)
    assert found.chosen is None and "no configuration meets all of them" in found.reason
    drop, time = found.nearest
    assert (drop.item.size, drop.met, drop.others) == ("c", 3, True) and drop.value == pytest.approx(42.0)
    assert (time.item.size, time.value, time.met, time.others) == ("b", 2.0, 1, True)
    found = recommended(*cells, max_drop=1, max_ms=0.1)
    assert found.reason == "no configuration meets time, batch 1 0.1 ms"
    assert recommended(*cells, max_ms=1.0, batch=32).reason == "no configuration has a measured time, batch 32"


def test_validation_scores_choose_only_if_told():
    blind = study(cell("base", 0.93, None, is_teacher=True, methods=()), cell("small", 0.92, None))
    found = recommend(Configurations(blind), "sst2", Limits(max_drop=2))
    assert found.chosen is None and "has a held-out score" in found.reason
    told = recommend(Configurations(blind), "sst2", Limits(max_drop=2, by_validation=True))
    assert told.chosen.size == "base" and told.by_validation
    mixed = recommended(cell("small", 0.99, None), cell("mini", 0.8, 0.91), max_mb=100, by_validation=True)
    assert mixed.chosen.size == "mini" and mixed.without == 1 and not mixed.by_validation


def test_a_drop_is_from_the_teacher_alone():
    without = study(cell("small", 0.92, 0.92))
    assert "no teacher" in recommend(Configurations(without), "sst2", Limits(max_drop=1)).reason
    blind = study(cell("base", 0.93, None, methods=(), is_teacher=True), cell("small", 0.92, 0.92))
    assert "has no held-out score" in recommend(Configurations(blind), "sst2", Limits(max_drop=1)).reason


def test_the_recipe_is_reported_with_its_validation_score_and_a_command():
    made = Configurations(
        study(
            TEACHER,
            *(
                cell("small", score, 0.91, 2.0, 30, ("qat", "kd", "mp"), seed=seed, settings={"sparsity": 0.6})
                for seed, score in enumerate((0.90, 0.92))
            ),
            common={"epochs": 2.0, "regrow": False, "pos_aware": True, "of_the_study": 1, "train_file": None},
        )
    )
    found = advice(made, Limits(max_mb=100))
    (table,) = found.tables
    assert table.rows[0][:4] == ("sst2", "small, QAT+KD+MP, sparsity 0.6", pytest.approx(91.0), pytest.approx(91.0))
    assert table.rows[0][4].value == pytest.approx(1.0) and table.rows[0][4].mark == ""
    assert table.rows[1][1] == "teacher: base, none" and table.rows[1][4].mark == "(rows)"
    (line,) = found.commands
    assert line == (
        "sparseq compress --model small --teacher TEACHER --methods qat,kd,mp --task sst2 --sparsity 0.6 --no-regrow "
        "--pos-aware --epochs 2 --out OUT"
    )
    assert "TEACHER stands for" in found.sentences[-1]


def test_a_cell_with_its_recipe_has_the_whole_command():
    recipe = {
        "model": "a folder/model",
        "layers": [0, 2],
        "teacher": "t",
        "task": "sst2",
        "temperature": 4.0,
        "seed": 3,
    }
    made = Configurations(study(cell("small", 0.9, 0.9, methods=("kd",), recipe=recipe, seed=3)))
    found = advice(made, Limits(max_mb=100))
    assert found.commands == (
        "sparseq compress --model 'a folder/model' --teacher t --layers 0,2 --methods kd --task sst2 --temperature 4 "
        "--seed 3 --out OUT",
    )
    assert found.sentences == ()


def test_the_command_can_be_given():
    """It is what `sparseq compress` takes, whatever the names are."""
    import shlex

    from sparseq.cli.entry import command_parser

    one = record("a task; rm -rf /", "--size $(x)", ("mp",), 0, 0.9, settings={"sparsity": 0.5, "pattern": "4x4"})
    made = Configurations(study(one))
    given = command_parser().parse_args(shlex.split(command(made, made.items[0]))[1:])
    assert (given.model, given.task, given.methods) == ("--size $(x)", "a task; rm -rf /", "mp")


def test_a_cell_that_was_timed_on_a_busy_machine_is_as_fast_as_its_ratio_says():
    """Milliseconds of different processes are not compared: only ratios to the teacher that was timed beside."""
    quiet, busy = latency(2.0, 10.0), latency(6.0, 30.0)
    cells = [
        record("sst2", size, (), 0, 0.9, latency={"1": one}, processor="p", threads=1)
        for size, one in (("base", quiet), ("small", busy), ("mini", quiet))
    ]
    found = [item.milliseconds("1") for item in Configurations(study(*cells)).items]
    assert found == [pytest.approx(2.0)] * 3  # the teacher's median is 10 ms


def test_latencies_are_means_over_seeds_with_the_widest_interval():
    cells = [record("sst2", "base", (), seed, 0.9, ms=ms) for seed, ms in enumerate((2.0, 4.0))]
    found = Configurations(study(*cells)).items[0].latency("1")
    one, other = latency(2.0, 10.0), latency(4.0, 10.0)
    assert found.milliseconds == pytest.approx(3.0) and found.speedup == pytest.approx(3.75)
    assert (found.low, found.high) == (10.0 / one.speedup_high, 10.0 / other.speedup_low)
    assert (found.speedup_low, found.speedup_high) == (other.speedup_low, one.speedup_high)
