"""Imports run one way, and importing the library costs no more than it must."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# Lower layers first; a module may import its own layer and those below.
LAYERS = [
    {"sparseq_kernels"},
    {"sparseq.errors"},
    {"sparseq.failures", "sparseq.locks", "sparseq.paths", "sparseq.reading", "sparseq.terminal"},
    {"sparseq.nn"},
    {"sparseq.paired", "sparseq.pinned", "sparseq.prune", "sparseq.timing"},
    {"sparseq.assets", "sparseq.augment", "sparseq.distill", "sparseq.tasks", "sparseq.checkpoint"},
    {"sparseq.models", "sparseq.size", "sparseq.pretrained"},
    {"sparseq.registration"},
    {"sparseq"},
    {"sparseq.train"},
    {"sparseq.report"},
    {"sparseq.demo", "sparseq.cli"},
    {"sparseq.__main__"},
]


def place(module: str) -> int | None:
    """The layer of the longest listed prefix of a module's name."""
    if module.split(".")[0] not in ("sparseq", "sparseq_kernels"):
        return None
    parts = module.split(".")
    for end in range(len(parts), 0, -1):
        for number, names in enumerate(LAYERS):
            if ".".join(parts[:end]) in names and (end > 1 or parts[0] == "sparseq_kernels" or len(parts) == 1):
                return number
    raise AssertionError(f"{module} is in no layer of tests/test_architecture.py")


def imports(path: Path, module: str, package: bool) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = module.split(".")[: len(module.split(".")) - node.level + package] if node.level else []
            name = ".".join([*base, *([node.module] if node.module else [])])
            # `from sparseq import checkpoint` imports the module and not what the package's own __init__ offers.
            submodules = {f"{name}.{alias.name}" for alias in node.names if is_module(f"{name}.{alias.name}")}
            found |= submodules or {name}
    return found


def is_module(name: str) -> bool:
    path = ROOT / ("kernels/" if name.startswith("sparseq_kernels") else "") / name.replace(".", "/")
    return path.with_suffix(".py").exists() or (path / "__init__.py").exists()


FILES = sorted([*ROOT.glob("sparseq/**/*.py"), *ROOT.glob("kernels/sparseq_kernels/**/*.py")])


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_run_one_way(path):
    relative = path.relative_to(ROOT / "kernels" if "kernels" in path.relative_to(ROOT).parts[:1] else ROOT)
    package = path.name == "__init__.py"
    module = ".".join((relative.parent if package else relative.with_suffix("")).parts)
    own = place(module)
    for imported in imports(path, module, package):
        other = place(imported)
        assert other is None or own is None or other <= own, f"{module} imports {imported}, which is built on it"


def is_kernel(function: ast.FunctionDef) -> bool:
    return any("triton.jit" in ast.unparse(decorator) for decorator in function.decorator_list)


@pytest.mark.parametrize("path", sorted(ROOT.glob("kernels/sparseq_kernels/triton/**/*.py")), ids=lambda p: p.name)
def test_what_is_no_kernel_has_types(path):
    functions = [
        node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.FunctionDef)
    ]
    for function in functions:
        arguments = [a for a in function.args.args + function.args.kwonlyargs if a.arg not in ("self", "cls")]
        typed = function.returns is not None and all(a.annotation is not None for a in arguments)
        assert is_kernel(function) or typed, f"{path.name}: {function.name} has parameters or a result without types"


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_importing_brings_in_no_training_library(fresh):
    modules = "sparseq_kernels", "sparseq.nn", "sparseq", "sparseq.models", "sparseq.cli"
    heavy = "{'transformers', 'datasets', 'triton', 'sklearn', 'scipy', 'matplotlib'}"
    done = fresh.run(
        "import sys\n" + "\n".join(f"import {m}; print('{m}', *{heavy} & set(sys.modules))" for m in modules)
    )
    assert done.stdout.split() == list(modules), done.stdout + done.stderr


@pytest.mark.parametrize(
    "argv",
    [["--help"], ["--version"], ["nonsense"], [], ["compress", "--help"], ["compress", "--model", "tiny"],
     ["compress", "--learning-rate", "1"], ["compress", "--recipe", "missing.yaml"], ["size", "--help"]],
    ids=" ".join,
)  # fmt: skip
def test_help_and_wrong_commands_do_without_torch(argv):
    code = f"""
import sys
sys.modules.update(torch=None, numpy=None, transformers=None, datasets=None, rich=None)
from sparseq.cli import main
sys.exit(main({argv!r}))
"""
    done = run(code)
    assert done.returncode == (0 if {"--help", "--version"} & set(argv) else 2), done.stderr
    assert "torch" not in done.stderr


NEED_TORCH = "formats", "dtypes", "cache", "tiles", "reference.int8_linear", "checks.inference"


@pytest.mark.parametrize(
    "first",
    ["sparseq_kernels.errors", "sparseq_kernels.formats",
     *(pytest.param(name, marks=pytest.mark.slow) for name in ("sparseq", "sparseq_kernels")),
     *(pytest.param(f"sparseq_kernels.{name}", marks=pytest.mark.slow) for name in NEED_TORCH[1:])],
)  # fmt: skip
def test_the_ops_are_there_with_torch_whichever_is_imported_first(first):
    """And without another import after it."""
    code = f"""
import sys, {first}
before = "torch" in sys.modules
import torch
print(before, torch.ops.sparseq.magnitude_mask, hasattr(torch.ops.sparseq, "int8_linear"))
print([finder for finder in sys.meta_path if getattr(finder, "module", "").startswith("sparseq_kernels.")])
import sparseq, sparseq.nn
print(sparseq.nn.convert is sparseq.convert, "convert" in dir(sparseq))
"""
    done = run(code)
    needs = first.removeprefix("sparseq_kernels.") in NEED_TORCH
    assert done.stdout.split() == [str(needs), "sparseq.magnitude_mask", "True", "[]", "True", "True"], done


def test_what_the_packages_offer_can_be_imported(fresh):
    code = """
import sparseq, sparseq_kernels
for package in (sparseq, sparseq_kernels):
    for name in package.__all__:
        getattr(package, name)
        exec(f"from {package.__name__} import {name}")
    try:
        package.nothing
    except AttributeError as error:
        print(error)
"""
    done = fresh.run(code)
    assert done.stdout.count("has no attribute 'nothing'") == 2, done


def test_python_m_is_the_command():
    for module in ("sparseq", "sparseq.cli"):
        done = subprocess.run([sys.executable, "-m", module, "--version"], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout.split()[0]) == (0, "sparseq"), done


def test_works_where_triton_and_the_training_libraries_are_absent_or_broken(fresh):
    code = """
import sys
for name in ("triton", "transformers", "datasets", "rich", "sklearn", "scipy", "matplotlib", "accelerate"):
    sys.modules[name] = None  # importing it raises ImportError
import torch, sparseq
from torch import nn
model = sparseq.convert(nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 2)), sparsity=0.5)
model(torch.randn(3, 8)).sum().backward()
packed = sparseq.pack(model)
import tempfile
with tempfile.TemporaryDirectory() as folder:
    sparseq.save(packed, folder)
    again = sparseq.load(folder, nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 2)))
x = torch.randn(3, 8)
print(torch.equal(again(x), packed(x)), "total" in str(sparseq.size_report(packed)).lower())
"""
    done = fresh.run(code)
    assert done.stdout.strip() == "True True", done.stdout + done.stderr


def test_one_module_looks_for_homes() -> None:
    """`Path.expanduser` and `Path.home` raise RuntimeError where there is none, of which `sparseq.paths` makes a
    sentence and the cache a folder of its own."""
    known = {"sparseq/paths.py", "kernels/sparseq_kernels/cache.py"}
    found = {
        str(path.relative_to(ROOT))
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute)
        and node.attr in ("expanduser", "home")
        and not (isinstance(node.value, ast.Attribute) and node.value.attr == "path")
    }
    assert found == known
