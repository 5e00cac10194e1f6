"""The native code that came with the package: when it is taken, and what is said when it cannot be."""

import ctypes
import json
import platform
import sys
import warnings

import pytest
from code_folders import compiler, compiles, forget, quietly

import sparseq_kernels
from sparseq_kernels import instruction_sets
from sparseq_kernels.cpu import native
from sparseq_kernels.cpu.native import build, prebuilt
from sparseq_kernels.cpu.native import compiler as compiling

ON_LINUX = prebuilt.this_platform() == "linux x86_64" and platform.libc_ver()[0] == "glibc"
pytestmark = [compiles, pytest.mark.skipif(not ON_LINUX, reason="it is built for Linux on x86-64 alone")]


@pytest.fixture
def libraries(tmp_path, monkeypatch, folder):
    """A folder of libraries as a wheel has them, of a small C file."""
    source = tmp_path / "code.c"
    source.write_text("#include <string.h>\nint number(void) { return 7; }\nvoid *f(void *a, void *b, long n)\n{\n")
    source.write_text(source.read_text() + "#pragma omp parallel\n    memcpy(a, b, n);\n    return a;\n}\n")
    monkeypatch.setattr(prebuilt, "SOURCES", (source,))
    monkeypatch.setattr(prebuilt, "HEADERS", ())
    monkeypatch.setattr(prebuilt, "FOLDER", tmp_path / "libraries")
    monkeypatch.setattr(prebuilt, "_warned", False)
    prebuilt.make(prebuilt.FOLDER)
    native.openmp.share()
    return prebuilt.FOLDER


def said(name="portable"):
    """The warning that loading brings; it comes once."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert prebuilt.load(name) is None and prebuilt.load(name) is None
    [warning] = caught
    message = str(warning.message)
    start, end = "sparseq's prebuilt native code is not used: ", "; it is built here instead, if there is a compiler"
    assert message.startswith(start) and message.endswith(end)
    return message[len(start) : -len(end)]


def change(folder, **changes):
    about = json.loads((folder / prebuilt.ABOUT).read_text())
    (folder / prebuilt.ABOUT).write_text(json.dumps(about | changes))


def test_there_is_one_for_each_set(libraries):
    assert {path.stem for path in libraries.glob("*.so")} == set(instruction_sets.SETS)
    for name in instruction_sets.available():
        library = quietly(lambda name=name: prebuilt.load(name))
        assert library.number() == 7 and not isinstance(library, ctypes.PyDLL), "it would keep the GIL"


def test_it_needs_the_c_library_alone(libraries):
    for path in libraries.glob("*.so"):
        content = path.read_bytes()
        assert b"GOMP_parallel" in content and b"libgomp" not in content and b"libc.so.6" in content


def test_without_any_nothing_is_said(libraries):
    for path in libraries.iterdir():
        path.unlink()
    assert quietly(lambda: prebuilt.load("portable")) is None


@pytest.mark.parametrize("changed", ["source", "header", "flags", "flags of the set"])
def test_it_is_not_taken_for_other_code(changed, libraries, monkeypatch, tmp_path):
    if changed == "source":
        prebuilt.SOURCES[0].write_text(prebuilt.SOURCES[0].read_text().replace("7", "8"))
    elif changed == "header":
        (tmp_path / "new.h").write_text("")
        monkeypatch.setattr(prebuilt, "HEADERS", (tmp_path / "new.h",))
    elif changed == "flags":
        monkeypatch.setattr(prebuilt, "FLAGS", (*prebuilt.FLAGS, "-g"))
    else:
        other = instruction_sets.InstructionSet("portable", ("-g",))
        monkeypatch.setattr(prebuilt, "SETS", prebuilt.SETS | {"portable": other})
    assert quietly(lambda: prebuilt.load("portable")) is None


def test_one_of_another_platform(libraries):
    change(libraries, platform="linux s390x")
    assert said() == f"it was built for linux s390x, and this is {sys.platform} {platform.machine()}"


def test_one_that_was_cut(libraries):
    path = libraries / "portable.so"
    path.write_bytes(path.read_bytes()[:2000])
    assert said() == f"{path} is damaged"


def test_one_that_is_missing(libraries):
    (libraries / "portable.so").unlink()
    assert said().startswith("it cannot be loaded (") and "portable.so" in said_again(libraries)


def said_again(libraries):
    prebuilt._warned = False
    return said()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"platform": 1}', "\xff"])
def test_a_description_that_is_no_description(text, libraries):
    (libraries / prebuilt.ABOUT).write_text(text, encoding="latin-1")
    expected = "damaged" if text != '{"platform": 1}' else "it was built for 1"
    assert expected in said()


def test_one_that_lacks_a_function_of_the_runtime(libraries, monkeypatch):
    prebuilt.SOURCES[0].write_text("void GOMP_of_another_time(void);\nvoid f(void) { GOMP_of_another_time(); }\n")
    prebuilt.make(libraries)
    assert "undefined symbol: GOMP_of_another_time" in said()


def test_no_half_of_a_folder_is_made(tmp_path, monkeypatch):
    broken = tmp_path / "broken.c"
    broken.write_text("int f(void) { return }\n")
    monkeypatch.setattr(prebuilt, "SOURCES", (broken,))
    with pytest.raises(compiling.UnavailableError, match=r"^instruction set avx512_vnni: .* could not build it: "):
        prebuilt.make(tmp_path / "libraries")
    assert not (tmp_path / "libraries").exists()


def test_it_is_not_made_by_clang(tmp_path, monkeypatch):
    """Whatever clang is called."""
    script = 'for written; do :; done; echo "#define __clang__ 1" > "$written"'
    monkeypatch.setenv("CC", str(compiler(tmp_path, script)))
    with pytest.raises(compiling.UnavailableError, match="is clang, whose OpenMP code cannot run on torch's runtime"):
        prebuilt.make(tmp_path / "libraries")


def test_it_is_not_made_elsewhere(tmp_path, monkeypatch):
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    with pytest.raises(compiling.UnavailableError, match="linux x86_64 with glibc alone, and this is linux aarch64"):
        prebuilt.make(tmp_path / "libraries")


def test_the_newest_symbol_of_the_c_library_is_found():
    assert prebuilt._needed_glibc(b"\0GLIBC_2.2.5\0GLIBC_2.27\0GLIBC_2.4\0") == (2, 27)
    assert prebuilt._needed_glibc(b"\0GLIBC_2.2.5\0GLIBC_2.14\0") == prebuilt._needed_glibc(b"") == (2, 17)


@pytest.fixture
def code():
    """The native code of this machine, as if nothing of it had been looked for."""
    found = native.library()
    forget()
    yield found
    forget()


def test_which_one_runs_is_said(code, monkeypatch):
    monkeypatch.setattr(prebuilt, "load", lambda name: code)
    assert sparseq_kernels.backend(details=True).endswith(", prebuilt)")
    forget()
    monkeypatch.setattr(prebuilt, "load", lambda name: None)
    monkeypatch.setattr(native, "load", lambda *args: code)
    assert sparseq_kernels.backend(details=True).endswith(", built here)")


def test_where_it_is_no_compiler_is_needed(code, monkeypatch):
    monkeypatch.setattr(prebuilt, "load", lambda name: code)
    monkeypatch.setattr(compiling, "find_compiler", lambda: pytest.fail("a compiler was looked for"))
    monkeypatch.setattr(build, "find_compiler", compiling.find_compiler)
    assert native.why_not() is None
