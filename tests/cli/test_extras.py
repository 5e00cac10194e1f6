"""What each command needs: predictions do without the libraries of training, and a missing extra is one sentence."""

import re
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from fresh import FreshProcesses
from refusals import compress_flags, refused_run

from sparseq.cli import main
from sparseq.extras import MODULES, install_for, modules_of, require

ROOT = Path(__file__).parents[2]
# transformers itself needs a reader of YAML.
TRAINING = [name for name in (*MODULES["train"], "pyarrow", "pandas") if name != "yaml"]


@pytest.fixture(scope="module")
def finished(
    tiny_model_dir: Path, tiny_csv: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, str]:
    """(the folder of a finished run, what it predicts for "the film was good")."""
    out = tmp_path_factory.mktemp("runs") / "out"
    given = {"--model": tiny_model_dir, "--train-file": tiny_csv[0], "--validation-file": tiny_csv[1], "--out": out}
    assert main(compress_flags({**given, "--methods": "ptq", "--epochs": 0, "--max-length": 32})) == 0
    from sparseq.train import predict

    (found,) = predict(out, [("the film was good",)])
    return out, f"{found.label}\t{found.value:.4f}\tthe film was good\n"


def without(modules: list[str], *argv: object) -> str:
    """Code that runs a command where these modules are not installed."""
    return f"""
import sys
sys.modules.update(dict.fromkeys({modules!r}))
from sparseq.cli import main
sys.exit(main({list(map(str, argv))!r}))
"""


def test_predictions_need_transformers_alone(finished: tuple[Path, str], fresh: FreshProcesses, tmp_path: Path) -> None:
    folder, expected = finished
    done = fresh.run(without(TRAINING, "predict", folder, "the film was good"))
    assert (done.returncode, done.stdout) == (0, expected) and "sparseq:" not in done.stderr, done.stderr
    (tmp_path / "texts.csv").write_text("sentence,label\nthe film was good,1\n")
    done = fresh.run(without(TRAINING, "predict", folder, "--file", tmp_path / "texts.csv"))
    assert (done.returncode, done.stdout) == (0, expected), done.stderr
    done = fresh.run(without(TRAINING, "size", folder))
    assert done.returncode == 0 and "stored" in done.stdout, done.stderr


def test_a_file_that_needs_more_says_so(finished: tuple[Path, str], fresh: FreshProcesses, tmp_path: Path) -> None:
    (tmp_path / "texts.parquet").write_bytes(b"PAR1")
    done = fresh.run(without(TRAINING, "predict", finished[0], "--file", tmp_path / "texts.parquet"))
    assert done.returncode == 2
    assert done.stderr == ("sparseq: error: this needs pyarrow, which is not installed: pip install 'sparseq[train]'\n")


COMMANDS: dict[str, tuple[str, list[str]]] = {
    "compress": ("train", ["--model", "tiny", "--task", "sst2", "--methods", "none", "--out", "out"]),
    "evaluate": ("train", ["run"]),
    "predict": ("hf", ["run", "a text"]),
    "export": ("train", ["run", "--out", "model.onnx"]),
    "size": ("hf", ["run"]),
    "study run": ("train", ["study.toml", "--out", "out"]),
    "study report": ("study", ["study"]),
}


def test_every_command_is_known_here() -> None:
    from sparseq.cli.entry import command_parser

    (commands,) = [action.choices for action in command_parser()._actions if isinstance(action.choices, dict)]
    assert set(commands) == {name.partition(" ")[0] for name in COMMANDS}
    for name in commands:
        assert COMMANDS.get(name, COMMANDS.get(f"{name} run"))[0] == import_module(f"sparseq.cli.{name}").EXTRA  # type: ignore[index]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_missing_extra_is_one_sentence(command: str, fresh: FreshProcesses, tmp_path: Path) -> None:
    """With none of the optional libraries there."""
    extra, argv = COMMANDS[command]
    absent = [*modules_of("ray"), "shtab", "tokenizers", "huggingface_hub", "pyarrow", "pandas"]
    done = fresh.run(f"import os; os.chdir({str(tmp_path)!r})" + without(absent, *command.split(), *argv))
    assert done.returncode == 2 and done.stdout == ""
    expected = rf"sparseq: error: this needs \w+, which is not installed: pip install 'sparseq\[{extra}\]'\n"
    assert re.fullmatch(expected, done.stderr), done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("module", modules_of("train"))
def test_no_run_starts_that_could_not_end(
    module: str, run_flags: dict[str, Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Metrics are the last thing that is needed, hours after the first."""
    monkeypatch.setitem(sys.modules, module, None)
    said = refused_run(capsys, compress_flags(run_flags))
    assert said == f"this needs {module}, which is not installed: pip install 'sparseq[train]'"
    assert not run_flags["--out"].exists()


def test_the_smallest_extra_that_helps_is_named() -> None:
    assert install_for("transformers") == install_for("tokenizers.models") == "pip install 'sparseq[hf]'"
    assert install_for("transformers", "train") == "pip install 'sparseq[train]'"
    assert install_for("pyarrow", "hf") == "pip install 'sparseq[train]'"
    assert install_for("jinja2", "train") == "pip install 'sparseq[study]'"
    assert install_for("torch", "train") == "pip install sparseq"
    require("hf")
