"""The program that runs tests as on other processors."""

from pathlib import Path

import processors
import pytest
from processors import PASSES, SETS, Pass


def test_every_way_that_a_processor_can_differ_is_in_some_pass() -> None:
    assert {one.instructions for one in PASSES} == set(SETS)
    for instructions in SETS:
        own = [one for one in PASSES if one.instructions == instructions]
        assert {one.precision for one in own} == {"fp32", "bf16"} and {one.threads for one in own} == {1, 2}
    assert sum(one.summation > 0 for one in PASSES) >= 2
    assert Pass("AVX2", "bf16", 2, 3).environment() == {
        "ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2", "SPARSEQ_INSTRUCTION_SET": "avx2",
        "SPARSEQ_TEST_PRECISION": "bf16", "OMP_NUM_THREADS": "2", "SPARSEQ_TEST_SUMMATION": "3",
    }  # fmt: skip


def test_every_marked_test_is_in_a_file_that_is_run(request: pytest.FixtureRequest) -> None:
    marked = {str(item.path) for item in request.session.items if item.get_closest_marker("processor")}
    found = processors.marked_files()
    assert marked <= set(found) and len(found) > 5


def test_what_the_processor_lacks_is_not_run_but_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "read_text", lambda path, encoding: "flags : fma avx2 avx512_vnni")
    assert processors.missing(Pass("AVX2", "fp32", 1)) == processors.missing(Pass("as it is", "fp32", 1)) == ""
    assert processors.missing(Pass("AVX-512 without VNNI", "fp32", 1)) == "avx512f"


@pytest.mark.parametrize(
    ("code", "last", "ended", "line"),
    [
        (0, "7 passed, 2 skipped in 1.00s", 0, "7 passed, 2 skipped in"),
        (1, "1 failed, 6 passed in 1.00s", 1, "1 failed, 6 passed in"),
        (1, "1 passed, 2 errors in 1.00s", 1, "1 passed, 2 errors in"),
        (-4, "Fatal Python error: Illegal instruction", 1, "pytest ended with code -4 in"),
        (5, "no tests ran in 0.01s", 1, "pytest ended with code 5 in"),
    ],
)
def test_a_pass_that_fails_fails_the_whole(
    code: int, last: str, ended: int, line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(processors, "missing", lambda one: "")
    monkeypatch.setattr(processors, "run", lambda one, arguments: (code, f"what failed\n{last}\n", 1.0))
    assert processors.main([]) == ended
    said = capsys.readouterr().out
    assert said.count(f": {line}") == len(PASSES) and ("what failed" in said) == bool(ended)
    if last.startswith("7"):
        assert f"=== {7 * len(PASSES)} passed, {2 * len(PASSES)} skipped in" in said.splitlines()[-1]
