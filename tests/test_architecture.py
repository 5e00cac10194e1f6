"""Imports run one way: from layer to lower layer, and in no circle of modules."""

import ast
import re
import sys
from pathlib import Path

import pytest
from import_graph import circles, import_graph, imports_of, modules_of, way_around

ROOT = Path(__file__).parent.parent
PACKAGES = [ROOT / name for name in ("sparseq", "kernels/sparseq_kernels", "bench", "tools") if (ROOT / name).is_dir()]
MODULES = {name: path for package in PACKAGES for name, path in modules_of(package).items()}
GRAPH = import_graph(MODULES)
FILES = [path for name, path in MODULES.items() if name.split(".")[0] in ("sparseq", "sparseq_kernels")]

# Lower layers first; a module may import its own layer and those below. A module belongs to the longest name here that
# its own name begins with.
LAYERS = [
    {"sparseq_kernels.errors", "sparseq_kernels.locks", "sparseq_kernels.on_import"},
    {
        "sparseq_kernels.cache",
        "sparseq_kernels.encoder",
        "sparseq_kernels.instruction_sets",
        "sparseq_kernels.patterns",
        "sparseq_kernels.torch_internals",
        "sparseq_kernels.untrusted",
    },
    {"sparseq_kernels.dtypes", "sparseq_kernels.numerics"},
    {"sparseq_kernels.block_index", "sparseq_kernels.reference", "sparseq_kernels.registry"},
    {"sparseq_kernels.cpu", "sparseq_kernels.triton"},
    {"sparseq_kernels.backends", "sparseq_kernels.flops", "sparseq_kernels.validation", "sparseq_kernels.vmap"},
    {"sparseq_kernels.autograd"},
    {"sparseq_kernels.dispatch"},
    {"sparseq_kernels.deprecated", "sparseq_kernels.ops"},
    {"sparseq_kernels.formats"},
    {"sparseq_kernels.sparse_dispatch"},
    {"sparseq_kernels"},
    {"sparseq.errors", "sparseq.version"},
    {
        "sparseq.criterion",
        "sparseq.dataset_name",
        "sparseq.extras",
        "sparseq.failures",
        "sparseq.paths",
        "sparseq.reading",
        "sparseq.terminal",
    },
    {"sparseq.nn"},
    {"sparseq.downloads", "sparseq.drop", "sparseq.paired", "sparseq.prune", "sparseq.timing"},
    {"sparseq.augment", "sparseq.distill", "sparseq.tasks", "sparseq.checkpoint"},
    {"sparseq.models", "sparseq.onnx", "sparseq.size", "sparseq.hf"},
    {"sparseq.registration"},
    {"sparseq"},
    {"sparseq.train"},
    {"sparseq.study"},
    {"sparseq.assets", "sparseq.cli", "sparseq.demo"},
    {"sparseq.__main__"},
]


def layer_of(module: str) -> int | None:
    """The number of a module's layer; None for other libraries' modules."""
    if module.split(".")[0] not in ("sparseq", "sparseq_kernels"):
        return None
    parts = module.split(".")
    for end in range(len(parts), 0, -1):
        prefix = ".".join(parts[:end])
        for number, names in enumerate(LAYERS):
            # A package's name is the module alone: each of its submodules has a layer of its own.
            if prefix in names and (prefix not in ("sparseq", "sparseq_kernels") or module == prefix):
                return number
    raise AssertionError(f"{module} is in no layer of tests/test_architecture.py")


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_run_one_way(path):
    (module,) = [name for name in MODULES if MODULES[name] == path]
    own = layer_of(module)
    for imported in imports_of(module, path, MODULES):
        other = layer_of(imported)
        assert other is None or other <= own, f"{module} imports {imported}, which is built on it"


def test_no_module_imports_itself_by_way_of_others():
    assert not [way_around(GRAPH, circle) for circle in circles(GRAPH)]


def test_a_circle_is_found_wherever_its_imports_stand(tmp_path):
    package = tmp_path / "package"
    files = {
        "__init__": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .first import f",
        "first": "def f():\n    from package import second",
        "second": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .inner.third import Third",
        "inner/__init__": "",
        "inner/third": "class Third:\n    def late(self):\n        import package.first as first",
        "user": "from . import first, second\nimport torch",
    }
    (package / "inner").mkdir(parents=True)
    for name, text in files.items():
        (package / f"{name}.py").write_text(text + "\n")
    graph = import_graph(modules_of(package))
    assert graph["package"] == {"package.first"} and graph["package.user"] == {"package.first", "package.second"}
    (circle,) = circles(graph)
    assert circle == ("package.first", "package.inner.third", "package.second")
    assert way_around(graph, circle) == "package.first -> package.second -> package.inner.third -> package.first"
    (package / "second.py").write_text("")
    assert not list(circles(import_graph(modules_of(package))))


def test_the_reference_is_built_on_torch_and_numerics_alone():
    allowed = (
        "torch",
        "sparseq_kernels.numerics",
        "sparseq_kernels.patterns",
        "sparseq_kernels.reference",
        *sys.stdlib_module_names,
    )
    for module in (name for name in MODULES if name.startswith("sparseq_kernels.reference")):
        for imported in imports_of(module, MODULES[module], MODULES):
            known = any(imported == name or imported.startswith(f"{name}.") for name in allowed)
            assert known, f"{module} imports {imported}"


# Of torch: `torch._x`, `torch.a._x`, and what is private in the modules that are imported from it.
PRIVATE = re.compile(
    r"\btorch(\.\w+)*\._[A-Za-z]\w*(\.\w+)*|\bforward_ad\._\w+|\._is_view\(|\._is_zerotensor|\b_unsafe_view\b"
)
# A module that is looked up among those that were imported, by its name.
NAMED = {"sparseq/nn/unwrap.py": "torch._dynamo.eval_frame"}


def code_of(path):
    """The file without its docstrings and comments, which may name what they like."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            node.value.value = ""
    return ast.unparse(tree)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_private_functions_of_torch_are_used_in_one_module(path):
    name = path.relative_to(ROOT).as_posix()
    if name == "kernels/sparseq_kernels/torch_internals.py":
        assert PRIVATE.search(code_of(path))
        return
    found = [one[0] for one in PRIVATE.finditer(code_of(path)) if one[0] != NAMED.get(name)]
    assert not found, f"{name} uses {', '.join(found)}: name it in torch_internals.py"


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
