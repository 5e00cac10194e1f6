"""The documentation's site: its pages are the repository's, their links lead to each other, and faults are found."""

import re
from pathlib import Path

import pytest
import yaml
from pages import ROOT

from sparseq.errors import InputError
from tools import reference
from tools.docstrings import public_names
from tools.site import check
from tools.site.markdown import map_links, slug

CONFIG = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")


def test_links_are_changed_and_code_is_not() -> None:
    text = (
        "[a](x.md#b) ![c](y.png), [`d` and [e]](z.md) and `[f](g.md)`.\n\n"
        "```python\n[h](i.md)\n```\n\n    [j](k.md)\n\n| [l](m.md) | `n [--o]` | [p](q.md) |\n"
    )
    expected = text
    for target in ("x.md#b", "y.png", "z.md", "m.md", "q.md"):
        expected = expected.replace(f"({target})", f"(<{target}>)")
    assert map_links(text, lambda target: f"<{target}>") == expected


def test_an_anchor_is_that_of_the_repository_s_web_view() -> None:
    assert slug("`qat_linear`, quantizing inside: 4 x 4") == "qat_linear-quantizing-inside-4-x-4"


PAGE = """<html><head><link rel="canonical" href="https://here.org/"><link rel="stylesheet" href="a.css"></head>
<body style="background: url('b.png')"><h1 id="top">A</h1><a name="old"></a>
<a href="https://there.org/">elsewhere</a> <a href="sub/">a folder</a> <a href="sub/index.html#in%20it">an anchor</a>
<a href="#top">here</a> <a href="/index.html#old">from the root</a> <a href="mailto:a@b.org">mail</a>
<img src="data:image/png;base64,AA=="><img src="b.png" srcset="b.png 1x, b.png 2x"></body></html>"""


FROM_ELSEWHERE = "loads https://x.org/y from elsewhere"


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A small site without a fault."""
    for name, text in {
        "index.html": PAGE,
        "a.css": "@import 'c.css'; p { background: url(b.png) }",
        "b.png": "",
        "sub/index.html": '<p id="in it">',
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_a_site_without_faults_passes(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert list(check.problems(site)) == []
    assert check.main([str(site)]) == 0 and "links lead somewhere" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "added", "fault"),
    [
        ("index.html", '<a href="gone.html">', "index.html: gone.html leads nowhere"),
        ("index.html", '<a href="#gone">', "index.html: #gone has no such anchor"),
        ("sub/index.html", '<a href="../index.html#gone">', "sub/index.html: ../index.html#gone has no such anchor"),
        ("index.html", '<img src="gone.png">', "index.html: gone.png leads nowhere"),
        ("index.html", '<script src="https://x.org/y">', f"index.html {FROM_ELSEWHERE}"),
        ("index.html", '<script src="//x.org/y">', "index.html loads //x.org/y from elsewhere"),
        ("index.html", '<link rel="stylesheet" href="https://x.org/y">', f"index.html {FROM_ELSEWHERE}"),
        ("index.html", '<link rel="preconnect" href="https://x.org/y">', f"index.html {FROM_ELSEWHERE}"),
        ("index.html", '<p style="background: url(https://x.org/y)">', f"index.html {FROM_ELSEWHERE}"),
        ("index.html", '<img srcset="b.png 1x, https://x.org/y 2x">', f"index.html {FROM_ELSEWHERE}"),
        ("a.css", "@import 'https://x.org/y';", f"a.css {FROM_ELSEWHERE}"),
        ("a.css", "@font-face { src: url(https://x.org/y) }", f"a.css {FROM_ELSEWHERE}"),
    ],
)
def test_a_fault_is_named_with_its_page(
    site: Path, name: str, added: str, fault: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with (site / name).open("a") as file:
        file.write(added)
    assert list(check.problems(site)) == [fault]
    assert check.main([str(site)]) == 1 and fault in capsys.readouterr().err


def test_without_a_site_the_check_says_how_to_build_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="make docs"):
        list(check.problems(tmp_path))


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    pytest.importorskip("nbconvert", reason="the site's pages need the extra docs")
    from tools.site import pages as module

    return module.pages()


def test_the_navigation_has_every_page_once(pages: dict[str, str]) -> None:
    # Python's names, as the slug's function, are no plain YAML.
    config = yaml.safe_load(re.sub(r"!!python/name:\S+", "", CONFIG))
    named = re.findall(r"'([^']+\.md)'", str(config["nav"]))
    assert sorted(named) == sorted(name for name in pages if not name.startswith("source/"))


def test_every_public_name_is_on_a_page_of_the_site(pages: dict[str, str]) -> None:
    for name, (_, _, packages) in reference.PAGES.items():
        page = pages[f"reference/{name}.md"]
        for package in packages:
            for public in public_names(package):
                shown = (f"::: {package}.{public}\n", f"### {public}\n", f"`{public}`")
                assert any(text in page for text in shown), f"{package}.{public}"


def test_what_a_page_links_to_outside_docs_is_a_page_too(pages: dict[str, str]) -> None:
    assert "(source/bench/studies/minilm.toml.md)" in pages["how-to/studies.md"].replace("../", "")
    assert (ROOT / "bench/studies/minilm.toml").read_text("utf-8") in pages["source/bench/studies/minilm.toml.md"]
    assert "(tutorial/first-model.md)" in pages["index.md"] and "(overview.md)" in pages["index.md"]
    assert "(contributing.md#add-a-format)" in pages["reference/formats.md"].replace("../", "")


def test_signatures_and_docstrings_are_those_of_the_repository_s_pages() -> None:
    griffe = pytest.importorskip("griffe", reason="the site's pages need the extra docs")
    from tools.site.griffe_docstrings import Docstrings

    paths, extensions = [ROOT, ROOT / "kernels"], griffe.load_extensions(Docstrings)
    loader = griffe.GriffeLoader(search_paths=paths, extensions=extensions)
    loader.load("sparseq")
    modules = loader.modules_collection
    fields = {field.name: str(field.default) for field in modules["sparseq.train.recipe.Recipe"].parameters}
    assert (fields["bits"], fields["pattern"]) == ("8", "'4x4'")  # a setting's default, not its whole definition
    pruner = modules["sparseq.prune.FisherPruner"].members["__init__"].parameters
    assert str(pruner["max_layer_sparsity"].default) == "0.99"  # a named constant's value
    shown = modules["sparseq.nn.convert.convert"].docstring.value
    assert shown in (reference.FOLDER / "layers.md").read_text(encoding="utf-8")
