"""The task table, its spelling rules and its JSON form."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest

from sparseq.errors import InputError
from sparseq.tasks import GLUE, Task, get_task


def test_the_nine_tasks() -> None:
    assert set(GLUE) == {"cola", "sst2", "mrpc", "qqp", "stsb", "mnli", "qnli", "rte", "wnli"}
    for name, task in GLUE.items():
        assert task.name == name
        assert task.is_regression == (name == "stsb") == (task.num_labels == 1)
        assert task.label_names is None or len(task.label_names) == task.num_labels
        assert set(task.score_metrics) <= set(task.metrics)
    assert GLUE["mnli"].label_names == ("entailment", "neutral", "contradiction")


@pytest.mark.parametrize("spelling", ["sst2", "SST-2", "sst-2", "SST2", "sst_2"])
def test_any_spelling(spelling: str) -> None:
    assert get_task(spelling) is GLUE["sst2"]


def test_unknown_task_lists_the_valid_ones() -> None:
    with pytest.raises(InputError, match=r"unknown task 'ss2' \(did you mean 'sst2'\?\): expected one of cola, .*rte"):
        get_task("ss2")
    with pytest.raises(InputError, match="unknown task 'zzzz': expected"):
        get_task("zzzz")


@pytest.mark.parametrize("task", [*GLUE.values(), replace(GLUE["mnli"], validation_splits=("validation",))])
def test_json_round_trip(task: Task) -> None:
    assert Task.from_dict(json.loads(json.dumps(task.as_dict()))) == task


def test_from_dict_refuses_other_fields() -> None:
    with pytest.raises(InputError, match="not the fields of a task"):
        Task.from_dict({"name": "x", "colour": "red"})


def test_import_stays_light() -> None:
    code = (
        "import sys, sparseq.tasks; print(sorted({'datasets', 'sklearn', 'scipy', 'transformers'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
