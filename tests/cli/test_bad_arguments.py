"""Arguments that `sparseq compress` refuses: one sentence, exit code 2, and no folder left behind."""

import builtins
import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from refusals import compress_flags, refused_run

from sparseq.train.recipe import PATH_SETTINGS

CASES: list[tuple[dict[str, Any], str]] = [
    ({"--task": "sst3"}, r"unknown task 'sst3'.*sst2"),
    ({"--methods": "qat,prune"}, r"unknown method 'prune'.*qat, kd, mp"),
    ({"--pattern": "4by4"}, r"unknown sparsity pattern '4by4'.*4x4"),
    ({"--model": "huge"}, r"'?huge"),
    ({"--model": "./missing"}, r"there is no folder ./missing"),
    ({"--sparsity": 1}, r"sparsity must be at least 0 and below 1.*not 1"),
    ({"--sparsity": -0.1}, r"sparsity must be at least 0 and below 1"),
    ({"--sparsity": "much"}, r"--sparsity wants a number, not 'much'"),
    ({"--sparsity": "nan"}, r"--sparsity wants a number, not 'nan'"),
    ({"--pattern": "2:4"}, r"pattern 2:4 keeps 2 of every 4 weights.*at most 0.5"),
    ({"--pattern": "48x48"}, r"pattern 48x48 does not divide layer 'bert\.encoder\.layer\.0\..*--on-mismatch skip"),
    ({"--pattern": "48x48", "--on-mismatch": "skip"}, r"nothing to prune"),
    ({"--pattern": "3x32", "--prune-embeddings": None}, r"pattern 3x32 does not divide layer"),
    ({"--bits": 3}, r"--bits wants one of 4, 8, 16, not '3'"),
    ({"--max-layer-sparsity": 1.1}, r"--max-layer-sparsity wants a number of at least 0 and at most 1, not '1.1'"),
    ({"--augment-alpha": -1}, r"--augment-alpha wants a number of at least 0 and at most 1, not '-1'"),
    ({"--calibration": "median"}, r"--calibration wants one of max, average, percentile, mse, not 'median'"),
    ({"--scope": "all"}, r"--scope wants one of auto, global, lamp, normalized, layer, not 'all'"),
    ({"--epochs": 0}, r"--epochs wants a number above 0, not '0'"),
    ({"--batch-size": 2.5}, r"--batch-size wants a whole number of at least 1, not '2.5'"),
    ({"--seed": -1}, r"--seed wants a whole number of at least 0"),
    ({"--kd-alpha": 2}, r"--kd-alpha wants a number of at least 0 and at most 1, not '2'"),
    ({"--temperature": 0}, r"--temperature wants a number above 0"),
    ({"--prune-warmup": 0.8}, r"pruning cannot end \(--prune-end 0.7\) before it starts"),
    ({"--text-columns": "review"}, r"'review'.*(sentence|label)"),
    ({"--label-column": "stars"}, r"'stars'.*(sentence|label)"),
    ({"--train-file": "missing.csv"}, r"missing\.csv"),
    ({"--data-dir": "glue"}, r"not both"),
    ({"--max-length": 4096}, r"--max-length 4096 is more than the 64 tokens"),
    ({"--layers": 9}, r"layers is 9, but the model has 2"),
    ({"--layers": "x"}, r"--layers wants a number of layers such as 3"),
    ({"--augment-copies": 1, "--wordnet": "nowhere"}, r"WordNet folder nowhere"),
    ({"--recipe": "missing.toml"}, r"cannot read recipe missing\.toml"),
    ({"--teacher": None}, r"expected one argument"),
    ({"--frobnicate": 1}, r"unrecognized arguments: --frobnicate"),
]


@pytest.mark.parametrize(("changes", "sentence"), CASES, ids=lambda value: str(value)[:60])
def test_compress_refuses(
    changes: dict[str, Any],
    sentence: str,
    run_flags: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    flags = {**run_flags, **changes}
    said = refused_run(
        capsys, ["compress", *(str(part) for flag in flags.items() for part in flag if part is not None)]
    )
    assert re.search(sentence, said), said
    assert not Path(run_flags["--out"]).exists()


PATHS = (
    "--model",
    "--teacher",
    "--train-file",
    "--validation-file",
    "--data-dir",
    "--dataset",
    "--wordnet",
    "--baseline",
    "--out",
    "--recipe",
)

ODD_PATHS = {
    "no such user": "~nosuchuser/x",
    "too long": "./" + "x" * 5000,
    "a name too long": "x" * 300,
    "a loop": "loop",
    "in a loop": "loop/x",
    "in a file": "file/x",
    "a device": "/dev/zero",
    "a pipe": "pipe",
}


@pytest.mark.parametrize("odd", ODD_PATHS)
@pytest.mark.parametrize("flag", PATHS)
def test_paths_of_every_kind(
    flag: str,
    odd: str,
    run_flags: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    assert set(PATHS) - {"--recipe"} == {f"--{name.replace('_', '-')}" for name in PATH_SETTINGS}
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    Path("loop").symlink_to("loop")
    Path("file").write_text("mine")
    os.mkfifo("pipe")
    given = {**run_flags, "--methods": "kd", "--augment-copies": 1, flag: ODD_PATHS[odd]}
    if flag in ("--data-dir", "--dataset"):
        monkeypatch.setattr("sparseq.tasks.hub.reachable", lambda: False)  # which may have a data set of that name
        given = {name: value for name, value in given.items() if not name.endswith("-file")} | {"--task": "sst2"}
    said = refused_run(capsys, compress_flags(given))
    assert len(said) <= 2000
    assert not Path(run_flags["--out"]).exists()


@pytest.mark.parametrize("missing", ["--model", "--out", "--teacher", "--train-file"])
def test_what_must_be_given(missing: str, run_flags: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    kept = {name: value for name, value in run_flags.items() if name != missing}
    if missing == "--train-file":
        del kept["--validation-file"]
    said = refused_run(capsys, compress_flags(kept))
    assert {"--train-file": "--task", "--out": "--out"}.get(missing, missing) in said


def test_a_missing_extra(
    run_flags: dict[str, Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def without_transformers(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.partition(".")[0] == "transformers":
            raise ModuleNotFoundError("No module named 'transformers'", name="transformers")
        return real(name, *args, **kwargs)

    for module in ("sparseq.train.run", "sparseq.train.trainer", "sparseq.train.scoring"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setattr(builtins, "__import__", without_transformers)
    said = refused_run(capsys, compress_flags(run_flags))
    assert said == "this needs transformers, which is not installed: pip install 'sparseq[train]'"
