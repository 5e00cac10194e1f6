"""Links, anchors, and names of files, modules and functions in the Markdown files: all exist."""

import importlib
import re

import pages
import pytest
from pages import PAGES, ROOT, anchors, inline_code, links, places, source

NAMED = [str(page.relative_to(ROOT)) for page in PAGES]
# What a page may name and no checkout has: files that are written by a run, and those of other projects.
WRITTEN = re.compile(
    r"runs/|DIR/|model\.safetensors|config\.json|metrics\.json|recipe\.toml|recipe\.json|summary\.md|results\.json|report\.md|"
    r"tests\.xml|log\.txt|train\.tsv|predictions\.csv|training\.png|.*[<*{].*|compile-triton.*"
)
HISTORY = "CHANGELOG.md"  # It names what there was.


@pytest.fixture(scope="module")
def files() -> list[str]:
    """Every file of the repository's folders, from the root."""
    tops = ("kernels", "sparseq", "bench", "tools", "tests", "docs")
    return [str(path.relative_to(ROOT)) for top in tops for path in (ROOT / top).rglob("*") if path.is_file()]


@pytest.mark.parametrize("name", NAMED)
def test_links_lead_somewhere(name: str) -> None:
    page, dead = ROOT / name, []
    for target in links(page):
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        if not there.exists() or (anchor and anchor not in anchors(there)):
            dead.append(target)
    assert dead == []


def test_every_page_of_the_docs_is_reached_from_its_index() -> None:
    index = ROOT / "docs" / "README.md"
    reached = {(index.parent / target.partition("#")[0]).resolve() for target in links(index)}
    missing = [name for name in NAMED if name.startswith("docs/") and (ROOT / name).resolve() not in reached | {index}]
    assert missing == []


@pytest.mark.parametrize("name", [name for name in NAMED if name != HISTORY])
def test_files_that_are_named_exist(name: str, files: list[str]) -> None:
    # OP stands for any op.
    named = [re.sub(r"\bOP\b|(?<=_)OP\b", "quantize_rows", code) for code in inline_code(ROOT / name)]
    missing = [
        code
        for code in named
        if re.fullmatch(r"[\w./-]*\w\.(py|c|md|toml|txt|json|png)|[\w-]+(/[\w-]+)+/", code)
        and not WRITTEN.match(code)
        and source(code) is None
        and not any(file.endswith(f"/{code}") for file in files)
    ]
    assert missing == []


@pytest.mark.parametrize("name", [name for name in NAMED if name != HISTORY])
def test_functions_named_with_their_file_are_defined_there(name: str) -> None:
    wrong = []
    for file, function in places(pages.prose(ROOT / name)):
        path = source(file)
        pattern = rf"^\s*(?:async )?def {function}\(|^\s*class {function}\b|^[\w *]+\b{function}\("
        if path is None or not re.search(pattern, path.read_text(encoding="utf-8"), re.MULTILINE):
            wrong.append(f"{file}: {function}")
    assert wrong == []


@pytest.mark.parametrize("name", [name for name in NAMED if name != HISTORY])
def test_modules_and_attributes_that_are_named_exist(name: str) -> None:
    wrong = []
    for code in inline_code(ROOT / name):
        found = re.match(r"(?:python -m )?((?:sparseq|sparseq_kernels|bench|tools)(?:\.[A-Za-z_]\w*)+)", code)
        dotted = found[1] if found else ""
        if not dotted or dotted.endswith((".NAME", ".OP")):
            continue
        if not _exists(dotted):
            wrong.append(code)
    assert wrong == []


def _exists(dotted: str) -> bool:
    parts = dotted.split(".")
    for end in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:end]))
        except ModuleNotFoundError:
            continue
        for part in parts[end:]:
            if not hasattr(found, part):
                return False
            found = getattr(found, part)
        return True
    return False


@pytest.mark.parametrize("name", [name for name in NAMED if name != HISTORY])
def test_targets_of_make_exist(name: str) -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    asked = {word for code in inline_code(ROOT / name) for word in re.findall(r"^make ([\w-]+)", code)}
    assert asked <= targets


def test_dead_ends_are_found(tmp_path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# One *thing*, `two`\n\n[a](gone.md) [b](#one-thing-two) [c](#nothing) ![d](e.png) [web](https://x)\n"
    )
    assert links(page) == ["gone.md", "#one-thing-two", "#nothing", "e.png"]
    assert anchors(page) == {"one-thing-two"}
    assert places("`a/b.py: f, g` and `c.c: h` and `d.py`") == [("a/b.py", "f"), ("a/b.py", "g"), ("c.c", "h")]
    assert not _exists("sparseq.nothing") and _exists("sparseq.nn.PackedLinear.expand")
