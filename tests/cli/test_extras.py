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
from sparseq.extras import MODULES, install_for, modules_of, naming_extra, require

ROOT = Path(__file__).parents[2]
OPTIONAL = [*modules_of("ray"), *modules_of("onnx"), "shtab", "tokenizers", "huggingface_hub", "pyarrow", "pandas"]
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
    done = fresh.run(f"import os; os.chdir({str(tmp_path)!r})" + without(OPTIONAL, *command.split(), *argv))
    assert done.returncode == 2 and done.stdout == ""
    expected = rf"sparseq: error: this needs \w+, which is not installed: pip install 'sparseq\[{extra}\]'\n"
    assert re.fullmatch(expected, done.stderr), done.stderr
    assert not list(tmp_path.iterdir())


PROGRAMS = {
    "sparseq": COMMANDS["compress"][1],
    "sparseq.cli": COMMANDS["compress"][1],
    "sparseq.demo": ["--size", "ci", "--out", "out"],
}


def test_every_program_is_known_here() -> None:
    files = (ROOT / "sparseq").rglob("__main__.py")
    assert set(PROGRAMS) == {".".join(file.parent.relative_to(ROOT).parts) for file in files}


@pytest.mark.parametrize("program", PROGRAMS)
def test_no_program_ends_in_a_traceback(program: str, fresh: FreshProcesses, tmp_path: Path) -> None:
    """`python -m PROGRAM`, with none of the optional libraries there; --help needs none."""
    argv = PROGRAMS[program] if program == "sparseq.demo" else ["compress", *PROGRAMS[program]]
    for given, status in (argv, 2), (["--help"], 0):
        done = fresh.run(f"""
import os, runpy, sys
os.chdir({str(tmp_path)!r})
sys.modules.update(dict.fromkeys({OPTIONAL!r}))
sys.argv[1:] = {given!r}
runpy.run_module({program!r}, run_name="__main__")
""")
        assert done.returncode == status, done.stderr
        if status:
            wanted = r"sparseq: error: this needs \w+, which is not installed: pip install 'sparseq\[train\]'\n"
            assert re.fullmatch(wanted, done.stderr), done.stderr
    assert not list(tmp_path.iterdir())


NAMES = """
import importlib, pkgutil, sys
sys.modules.update(dict.fromkeys({absent!r}))
import sparseq
found = pkgutil.walk_packages(sparseq.__path__, "sparseq.", onerror=lambda name: None)
for package in ["sparseq", *(module.name for module in found if module.ispkg)]:
    try:
        module = importlib.import_module(package)
    except sparseq.InputError as error:
        print(package, error)
        continue
    for name in getattr(module, "__all__", ()):
        try:
            getattr(module, name)
        except sparseq.InputError as error:
            print(package, name, error)
"""


def test_every_public_name_can_be_imported_or_says_what_it_needs(fresh: FreshProcesses) -> None:
    """Of each package. What needs no optional library, such as `Recipe`, is there without any."""
    done = fresh.run(NAMES.format(absent=OPTIONAL))
    assert done.returncode == 0, done.stderr
    found = dict(
        re.findall(r"^(.+?) this needs \w+, which is not installed: pip install 'sparseq\[(.+)\]'$", done.stdout, re.M)
    )
    assert len(found) == done.stdout.count("\n"), done.stdout
    train = ("Prediction", "RunResult", "compress", "draw_training", "evaluate", "predict")
    assert found == {
        "sparseq.hf": "hf",
        **{f"sparseq.train {name}": "hf" if name.lower().startswith("predict") else "train" for name in train},
        **{f"sparseq.study {name}": "train" for name in ("plan_study", "run_study")},
    }


CALLS = {
    "sparseq.load('packed')": "hf",
    "sparseq.export_onnx(torch.nn.Linear(2, 2), 'new.onnx')": "onnx",
    "sparseq.onnx.OnnxModel('model.onnx')": "onnx",
    "sparseq.models.load_model('tiny', num_labels=2)": "hf",
    "sparseq.models.load_tokenizer('tiny')": "hf",
    "sparseq.models.config_for('tiny')": "hf",
    "sparseq.tasks.load_data('sst2')": "train",
    "sparseq.tasks.load_data('custom', train_file='rows.csv', validation_file='rows.csv')": "train",
    "sparseq.tasks.compute_metrics(sparseq.tasks.get_task('cola'), numpy.eye(2), numpy.arange(2))": "train",
    "sparseq.augment.augment_dataset([], None)": "train",
    "sparseq.train.Recipe().to_toml()": "train",
    "sparseq.train.Recipe.from_file('recipe.yaml')": "train",
    "sparseq.study.report.write_report(None, 'report')": "study",
}


def test_every_public_function_says_what_it_needs(packed_dir: Path, fresh: FreshProcesses) -> None:
    """Those that can be imported without, and need a library when they are called."""
    done = fresh.run(f"""
import os, sys
sys.modules.update(dict.fromkeys({OPTIONAL!r}))
import numpy, sparseq, torch
import sparseq.augment, sparseq.models, sparseq.onnx, sparseq.study.report, sparseq.tasks, sparseq.train
os.chdir({str(packed_dir)!r})
for call in {list(CALLS)!r}:
    try:
        eval(call)
    except sparseq.InputError as error:
        print(error)
    else:
        print("nothing was missing")
""")
    assert done.returncode == 0, done.stderr
    said = dict(zip(CALLS, done.stdout.splitlines(), strict=True))
    wrong = {call: text for call, text in said.items() if not text.endswith(f"pip install 'sparseq[{CALLS[call]}]'")}
    assert not wrong


@pytest.fixture
def packed_dir(finished: tuple[Path, str], tmp_path: Path) -> Path:
    """A folder with what `CALLS` name."""
    (tmp_path / "packed").symlink_to(finished[0])
    (tmp_path / "model.onnx").write_bytes(b"")
    (tmp_path / "rows.csv").write_text("sentence,label\na film,1\na story,0\n")
    (tmp_path / "recipe.yaml").write_text("bits: 4\n")
    return tmp_path


def test_a_package_that_is_only_too_old_is_not_called_missing() -> None:
    with pytest.raises(ModuleNotFoundError, match="nosuch"), naming_extra("hf"):
        import_module("transformers.nosuch")
    with pytest.raises(ModuleNotFoundError, match="nosuch"), naming_extra("hf"):
        import_module("sparseq.nosuch")


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
