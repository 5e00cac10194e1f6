"""Builds the native code into a wheel: `pip wheel .` or `python -m build`. All else is in pyproject.toml.

Where that is not possible, because there is no compiler or the platform is another, the wheel is pure Python, and its
native code is built on first use.
"""

import shutil
import sys
from pathlib import Path
from types import ModuleType

from setuptools import Command, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build import build

KERNELS = Path(__file__).parent / "kernels"
NATIVE = "sparseq_kernels/cpu/native"

# These packages import torch, which is not there when a wheel is built; the modules that are needed here do not.
for name in ("sparseq_kernels", "sparseq_kernels.cpu", "sparseq_kernels.cpu.native"):
    package = ModuleType(name)
    package.__path__ = [str(KERNELS / name.replace(".", "/"))]
    sys.modules[name] = package

from sparseq_kernels.cpu.native import compiler, prebuilt  # noqa: E402


class BuildNative(Command):
    """Builds the libraries of all instruction sets beside the package's modules. tag: the platform that they are for,
    or None where there are none."""

    editable_mode = False
    user_options = ()

    def initialize_options(self):
        self.build_lib = self.tag = None

    def finalize_options(self):
        self.set_undefined_options("build_py", ("build_lib", "build_lib"))

    def run(self):
        if self.editable_mode:  # Its C files may change: it is built on first use, whenever they have.
            return
        native = Path(self.build_lib) / NATIVE
        self.remove_what_an_earlier_build_left(native)
        try:
            self.tag = prebuilt.make(native / prebuilt.FOLDER.name)
        except compiler.UnavailableError as error:
            self.warn(f"the wheel has no native code, which is built on first use instead: {error}")

    def remove_what_an_earlier_build_left(self, native):
        shutil.rmtree(native / prebuilt.FOLDER.name, ignore_errors=True)
        known = {path.name for path in (*compiler.SOURCES, *compiler.HEADERS)}
        for path in native.glob("*.[ch]"):
            if path.name not in known:
                path.unlink()

    def get_source_files(self):
        return []  # They are data of their package.

    def get_outputs(self):
        return []

    def get_output_mapping(self):
        return {}


class Build(build):
    sub_commands = (*build.sub_commands, ("build_native", None))


class BdistWheel(bdist_wheel):
    """A wheel for every Python 3, of the platform that the native code is for."""

    def run(self):
        # Modules that were moved since an earlier build would be packed too.
        built = Path(self.get_finalized_command("build_py").build_lib)
        for package in ("sparseq", "sparseq_kernels"):
            shutil.rmtree(built / package, ignore_errors=True)
        self.run_command("build_native")
        if self.native_tag:
            # The files belong where a platform's go, with extension modules.
            self.distribution.has_ext_modules = lambda: True
            self.root_is_pure = False
        super().run()

    def get_tag(self):
        return ("py3", "none", self.native_tag) if self.native_tag else super().get_tag()

    @property
    def native_tag(self):
        return self.get_finalized_command("build_native").tag


setup(cmdclass={"bdist_wheel": BdistWheel, "build": Build, "build_native": BuildNative})
