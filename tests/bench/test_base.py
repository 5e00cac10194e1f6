"""Another commit beside this tree: its names, and the comparison of both in one process."""

import json
import subprocess
from pathlib import Path

import pytest

from bench.base import renamed
from bench.frames import frames
from bench.packages import CURRENT

ROOT = Path(__file__).parents[2]


def test_packages_and_ops_get_other_names():
    source = """
import sparseq
from sparseq import nn
from sparseq.nn import Packed
from sparseq_kernels.errors import InputError
LIBRARY = torch.library.Library("sparseq", "DEF")
torch.ops.sparseq.int8_linear(x)
f"sparseq::{op}"
"sparseq.nn", 'sparseq_kernels'
folder = home / ".cache" / "sparseq"
sparseq_quantize_rows, sparse, SPARSEQ_CACHE
"""
    expected = """
import sparseq_base
from sparseq_base import nn
from sparseq_base.nn import Packed
from sparseq_kernels_base.errors import InputError
LIBRARY = torch.library.Library("sparseq_base", "DEF")
torch.ops.sparseq_base.int8_linear(x)
f"sparseq_base::{op}"
"sparseq_base.nn", 'sparseq_kernels_base'
folder = home / ".cache" / "sparseq"
sparseq_quantize_rows, sparse, SPARSEQ_CACHE
"""
    assert renamed(source) == expected


def has_history() -> bool:
    done = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, check=False)
    return done.returncode == 0


@pytest.mark.skipif(not has_history(), reason="this copy has no git history")
def test_a_commit_is_compared_with_this_tree(fresh, tmp_path):
    code = f"""
import sys
sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / "kernels")!r}]
from bench.__main__ import main
given = ["--device", "cpu", "--smallest", "--base", "HEAD"]
assert main(["run", "packed_linear", *given, "--shape", "2x16x16", "--json", {str(tmp_path / "packed.json")!r}]) == 0
from bench import base
import torch
from bench.kernels import OPS, benchmark
from bench.kernels.cases import OURS
from bench.measure import measure
from bench.packages import CURRENT, Packages
from bench.target import Target
import sparseq_base, sparseq_kernels_base
target = Target("cpu", True)
libraries = {{OURS: CURRENT, "base": Packages(sparseq_kernels_base, sparseq_base, "HEAD")}}
for op in OPS:
    if benchmark(op).why_not(target) is None:
        row, calls = measure(benchmark(op).cases(target)[0], target, target.clock(), None, libraries)
        assert {{"sparseq", "base"}} <= set(row["seconds"]), op
        assert ("sparseq", "base") in [(one["of"], one["to"]) for one in row["ratios"]]
print(main(["run", "int8_linear", *given]))
"""
    done = fresh.run(code, PYTEST_CURRENT_TEST=None)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "2" and "one is loaded already" in done.stderr
    found = json.loads((tmp_path / "packed.json").read_text())
    [row] = found["rows"]
    assert [ratio["to"] for ratio in row["ratios"]] == ["sparseq at HEAD"] and len(found["settings"]["base"]) == 40
    counted = row["frames"]
    assert set(counted) == {"sparseq", "sparseq at HEAD"}
    assert all(0 < one["own"] <= one["all"] for one in counted.values())


def test_frames_are_counted_by_whose_they_are():
    from collections import OrderedDict

    def call():
        OrderedDict.fromkeys([1])
        return helper()

    def helper():
        return CURRENT.layers.timing.Interval.of([1.0, 2.0])

    found = frames(call, CURRENT)
    assert found.own >= 1 and found.all >= found.own + 2
