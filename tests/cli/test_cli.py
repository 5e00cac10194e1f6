"""The command line, from arguments to what is printed."""

import errno
import io
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import sparseq
from sparseq.cli import main
from sparseq.paths import nearby
from sparseq.train import Recipe, RunResult


@pytest.fixture(scope="module")
def finished(
    tiny_model_dir: Path, tiny_csv: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[list[str], Path]:
    """(the command, the folder) of a small finished run."""
    out = tmp_path_factory.mktemp("runs") / "out"
    recipe = tmp_path_factory.mktemp("recipe") / "recipe.yaml"
    recipe.write_text("methods: [qat, mp]\nepochs: 5\nbatch_size: 8\nmax_length: 32\nsparsity: 0.3\n")
    command = [
        "compress", "--recipe", str(recipe), "--epochs", "1", "--model", str(tiny_model_dir), "--seed", "3",
        "--train-file", str(tiny_csv[0]), "--validation-file", str(tiny_csv[1]), "--no-regrow", "--out", str(out),
    ]  # fmt: skip
    assert main(command) == 0
    return command, out


def test_compress_prints_its_result_and_what_to_do_next(
    finished: tuple[list[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    command, out = finished
    assert main(command) == 0  # again: finished before, so that only the result is printed
    said = capsys.readouterr()
    result = RunResult.from_folder(out)
    assert f"{result.score:.4f}" in said.out
    assert f"{result.stored_bytes / 1e6:.2f} MB" in said.out
    assert f'    sparseq predict {out} "..."' in said.out.splitlines()
    assert f"    sparseq size {out}" in said.out.splitlines()
    assert f"{out}: finished before, not run again" in said.err


def test_flags_override_the_file_and_defaults_fill_the_rest(finished: tuple[list[str], Path]) -> None:
    recipe = Recipe.from_file(finished[1] / "recipe.toml")
    assert recipe.epochs == 1 and recipe.sparsity == 0.3 and recipe.seed == 3 and recipe.methods == ("qat", "mp")
    assert recipe.lr == Recipe().lr


def test_progress_is_told_in_lines_where_there_is_no_terminal(
    finished: tuple[list[str], Path], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    command, _ = finished
    assert main([*command[:-1], str(tmp_path / "other")]) == 0
    lines = capsys.readouterr().err.splitlines()
    for phase in ("preparing data", "training", "evaluating before packing", "packing and saving"):
        assert any(line.startswith(f"{phase}: done") for line in lines), phase
    assert any("loss" in line and "sparsity 0.30" in line for line in lines)
    assert len(lines) < 40


def test_predict_from_arguments_and_from_stdin(
    finished: tuple[list[str], Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = str(finished[1])
    assert main(["predict", out, "the film was good", "awful"]) == 0
    given = capsys.readouterr().out
    label, share, text = given.splitlines()[0].split("\t")
    assert label in ("0", "1") and 0 <= float(share) <= 1 and text == "the film was good"
    monkeypatch.setattr(sys, "stdin", io.StringIO("the film was good\n\nawful\n"))
    assert main(["predict", out]) == 0
    first, blank, last = capsys.readouterr().out.splitlines()
    assert [first, last] == given.splitlines() and blank == ""


def test_evaluate_and_size(finished: tuple[list[str], Path], capsys: pytest.CaptureFixture[str]) -> None:
    result = RunResult.from_folder(finished[1])
    assert main(["evaluate", str(finished[1])]) == 0
    assert f"score\t{result.score:.4f}" in capsys.readouterr().out.splitlines()
    assert main(["size", str(finished[1])]) == 0
    assert f"{result.stored_bytes:,}" in capsys.readouterr().out


def test_quiet_and_json_are_for_programs(
    finished: tuple[list[str], Path], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    command = [*finished[0][:-1], str(tmp_path / "other"), "--max-train-rows", "8"]
    assert main([*command, "--quiet", "--json"]) == 0
    said = capsys.readouterr()
    assert said.err == "" and said.out.count("\n") == 1
    found = json.loads(said.out)
    result = RunResult.from_folder(tmp_path / "other")
    assert found["score"] == result.score and found["out"] == result.out and found["finished_before"] is False
    assert set(result.as_dict()) <= set(found)
    assert main([*command, "--json"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["finished_before"] is True and "finished before" in said.err
    assert main([*command, "--quiet"]) == 0
    said = capsys.readouterr()
    assert said.err == "" and "score of the saved model" in said.out and "next:" not in said.out
    assert main(["size", result.out, "--json"]) == 0
    sizes = json.loads(capsys.readouterr().out)
    assert sizes["stored_bytes"] == result.stored_bytes and sizes["layers"][0]["name"]
    assert main([*command, "--quiet", "--seed", "9"]) == 2  # an error is said all the same
    assert capsys.readouterr().err.startswith("sparseq: error: ")
    assert not {"quiet", "json", "dry_run"} & set(Recipe.settings())


def test_a_dry_run_writes_nothing(
    finished: tuple[list[str], Path],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    tiny_teacher_dir: Path,
) -> None:
    monkeypatch.setenv("SPARSEQ_CACHE", str(tmp_path / "cache"))
    command = [
        *finished[0][:-1], str(tmp_path / "new"), "--teacher", str(tiny_teacher_dir), "--methods", "qat,kd,mp",
        "--activation", "static", "--hidden-loss", "1", "--layers", "1", "--max-length", "10",
        "--scope", "layer",  # with another, training decides how many weights each layer keeps
    ]  # fmt: skip
    assert main([*command, "--dry-run"]) == 0
    said = capsys.readouterr()
    for heading in ("data", "student", "teacher", "pruning", "quantized", "training"):
        assert any(line.startswith(f"{heading} ") for line in said.err.splitlines()), heading
    assert "nothing was trained or written" in said.out
    assert main([*command, "--dry-run", "--json", "--quiet"]) == 0
    said = capsys.readouterr()
    found = json.loads(said.out)
    assert said.err == "" and found["dry_run"] is True
    assert list(tmp_path.iterdir()) == []
    assert main([*command, "--json", "--quiet"]) == 0
    result = json.loads(capsys.readouterr().out)
    for name in ("steps", "rows", "parameters", "nonzero", "paper_bytes", "stored_bytes", "teacher_score"):
        assert found[name] == result[name], name
    assert main([*command, "--dry-run", "--lr", "1"]) == 2
    assert "already holds another run" in capsys.readouterr().err


def test_what_comes_next_can_be_pasted(
    finished: tuple[list[str], Path], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Folders have spaces and quotes, and a teacher's next step is a student."""
    out = tmp_path / "my 'run'"
    command = [*finished[0][:-1], str(out), "--methods", "none", "--max-train-rows", "8", "--max-length", "24"]
    assert main(command) == 0
    lines = capsys.readouterr().out.splitlines()
    following = [shlex.split(line) for line in lines[lines.index("next:") + 1 :] if line.startswith("    ")]
    assert [words[:2] for words in following] == [
        ["sparseq", name] for name in ("predict", "evaluate", "size", "compress")
    ]
    for words in following[:3]:
        assert main(words[1:]) == 0
    assert main([*following[3][1:], "--dry-run", "--quiet"]) == 0
    student = following[3]
    assert student[student.index("--model") + 1] == student[student.index("--teacher") + 1] == str(out)
    assert student[student.index("--max-length") + 1] == "24"


def test_what_comes_next_is_short_below_the_current_folder(
    finished: tuple[list[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*finished[0][:-1], "runs/mine", "--methods", "none", "--max-train-rows", "8"]) == 0
    lines = [line.strip() for line in capsys.readouterr().out.splitlines() if line.startswith("    ")]
    assert lines[0] == 'sparseq predict runs/mine "..."' and lines[-1].endswith(" --out runs/mine-student")
    assert nearby(str(tmp_path / "runs")) == "runs" and nearby("google/some-bert") == "google/some-bert"
    for odd in (str(tmp_path), f"{tmp_path}/", f"{tmp_path}/-x", f"{tmp_path}-beside"):
        assert nearby(odd) == odd


def commands(out: Path) -> list[list[str]]:
    return [["evaluate", str(out)], ["predict", str(out), "good"], ["size", str(out)]]


def test_without_a_stdin(
    finished: tuple[list[str], Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python has none where the process was started without one, as services are."""
    monkeypatch.setattr(sys, "stdin", None)
    assert main(["predict", str(finished[1])]) == 2
    assert "there is no stdin" in capsys.readouterr().err


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_without_an_output(stream: str, finished: tuple[list[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, stream, None)
    for command in commands(finished[1]):
        assert main(command) == 0
    assert main(["size", "nowhere"]) == 2


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no device that is always full")
def test_an_output_that_is_full(
    finished: tuple[list[str], Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for command in commands(finished[1]):
        with open("/dev/full", "w", encoding="utf-8") as full, monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", full)
            assert main(command) == 1
        said = capsys.readouterr().err.splitlines()[-1]
        assert said.startswith("sparseq: error: cannot write to /dev/full (No space left on device)")


def test_a_disk_that_is_full(
    finished: tuple[list[str], Path],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """One sentence, and the run continues once there is space."""

    def full(*args: object, **kwargs: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "model.safetensors")

    command = [*finished[0][:-1], str(tmp_path / "other")]
    with monkeypatch.context() as patch:
        patch.setattr("sparseq.checkpoint.save", full)
        assert main(command) == 1
    said = capsys.readouterr().err.splitlines()
    assert said[-1].startswith(f"sparseq: error: cannot write {tmp_path / 'other'} (No space left on device; ")
    assert said[-1].endswith("give the same command again")
    assert main(command) == 0


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    for argv in (["--version"], ["--help"], ["compress", "--help"], ["predict", "--help"]):
        with pytest.raises(SystemExit) as end:
            main(argv)
        assert end.value.code == 0
    said = capsys.readouterr().out
    assert f"sparseq {sparseq.__version__}" in said
    assert "examples:" in said
    for name, setting in Recipe.settings().items():
        assert f"--{name.replace('_', '-')}" in said, setting


def test_no_command_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "command" in capsys.readouterr().err


def test_interrupted(
    finished: tuple[list[str], Path],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    from sparseq.train import trainer

    def interrupt(self: trainer.CompressTrainer, *args: object, **kwargs: object) -> None:
        if self.state.global_step == 5:
            raise KeyboardInterrupt
        return step(self, *args, **kwargs)  # type: ignore[arg-type, return-value]

    step = trainer.CompressTrainer.training_step
    command = [*finished[0][:-1], str(tmp_path / "other"), "--save-steps", "2"]
    with monkeypatch.context() as patch:
        patch.setattr(trainer.CompressTrainer, "training_step", interrupt)
        assert main(command) == 130
    said = capsys.readouterr().err.splitlines()
    assert said[-1] == "sparseq: interrupted; the same command continues from step 4"
    assert main(command) == 0


@pytest.mark.parametrize("argv", [["--version"], ["compress", "--help"], ["compress", "--model", "tiny"]], ids=str)
def test_help_and_first_checks_need_no_transformers(argv: list[str]) -> None:
    code = (
        "import sys; sys.modules.update(transformers=None, datasets=None, rich=None)\n"
        f"from sparseq.cli import main\nsys.exit(main({argv!r}))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert process.returncode == (2 if "--model" in argv else 0), process.stderr
    assert "transformers" not in process.stderr
