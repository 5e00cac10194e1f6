"""The optional dependencies: which extra of `pip install 'sparseq[...]'` brings a module, and whether it is there."""

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from sparseq.errors import InputError

__all__ = ["MODULES", "install", "install_for", "modules_of", "naming_extra", "require"]

MODULES: dict[str, tuple[str, ...]] = {
    "hf": ("transformers", *(("tomli",) if sys.version_info < (3, 11) else ())),
    "train": ("accelerate", "datasets", "sklearn", "scipy", "rich", "matplotlib", "yaml", "tomli_w"),
    "study": ("jinja2",),
    "ray": ("ray",),
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "gpu": ("triton",),
    "completion": ("shtab",),
}
"""The modules that each extra of pyproject.toml adds to those of the extra that it builds on."""

BUILDS_ON = {"train": "hf", "study": "train", "ray": "study"}

_BROUGHT_BY_OTHERS = {"tokenizers": "hf", "huggingface_hub": "hf", "pyarrow": "train"}


def _with_lower(extra: str) -> tuple[str, ...]:
    """The extra and those that it builds on, the lowest first."""
    return (*(_with_lower(BUILDS_ON[extra]) if extra in BUILDS_ON else ()), extra)


def modules_of(extra: str) -> tuple[str, ...]:
    """The modules that an extra brings, with those of what it builds on."""
    return tuple(module for one in _with_lower(extra) for module in MODULES[one])


def install(extra: str = "") -> str:
    """The command that installs sparseq with an extra, or with what it always needs."""
    return f"pip install 'sparseq[{extra}]'" if extra else "pip install sparseq"


def install_for(module: str, command_extra: str = "") -> str:
    """The command that brings a module.

    command_extra: the one that the command at hand needs, which is named if it brings the module too: with a smaller
    one the next module would be missing.
    """
    brought_by = {name: extra for extra, names in MODULES.items() for name in names} | _BROUGHT_BY_OTHERS
    extra = brought_by.get(module.partition(".")[0], "")
    return install(command_extra if extra and command_extra and extra in _with_lower(command_extra) else extra)


@contextmanager
def naming_extra(extra: str = "") -> Iterator[None]:
    """In the block, or the function that it decorates, a missing package is an InputError that says what to install.

    extra: the one that the code inside needs, see `install_for`. The error stays a ModuleNotFoundError if the package
    is there and only a part of it is missing, and if it is sparseq itself.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package, _, part = (error.name or "").partition(".")
        if not package or package in ("sparseq", "sparseq_kernels") or (part and importlib.util.find_spec(package)):
            raise
        raise InputError(f"this needs {package}, which is not installed: {install_for(package, extra)}") from error


def require(extra: str) -> None:
    """Raises InputError, naming the first one, unless all modules of an extra can be found. None is imported."""
    for module in modules_of(extra):
        if importlib.util.find_spec(module) is None:
            raise InputError(f"this needs {module}, which is not installed: {install(extra)}")
