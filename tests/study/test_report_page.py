"""The report as files: a page that is valid and loads nothing, whatever the study's names are."""

import csv
import re
from html.parser import HTMLParser

import pytest
from made_study import plausible, record, study

from sparseq.errors import InputError, MachineError
from sparseq.study.records import StudyResults
from sparseq.study.report import write_report

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "../../etc/passwd",
    "$\\frac{1}{0}$ _x^",
    "_hidden",
    "{{ 7 * 7 }}{% raw %}",
    "a|b\nc\td\x1b[2J\u202egpj",
    "=cmd()",
    "x" * 2000,
    "名前 🙂",
    "",
]
VOID = {"meta", "img", "br", "hr", "link", "input"}


class Page(HTMLParser):
    """What is in a page; fails where elements are not closed in order."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.attributes, self.ids, self.texts = [], [], [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names))
        self.attributes += [(tag, *attribute) for attribute in attrs]
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] != ["style"]:
            self.texts.append(data)


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report") / "new"
    results = plausible(seeds=2)
    return results, write_report(results, folder, max_drop=2.0, max_mb=60.0, max_ms=5.0)


def check(page):
    """It loads nothing and runs nothing, and its links lead to its own parts."""
    text = page.read_text(encoding="utf-8")
    found = Page(text)
    assert {"script", "link", "iframe", "object", "embed", "base", "form"}.isdisjoint(found.tags)
    for tag, name, value in found.attributes:
        assert not name.startswith("on"), (tag, name)
        if name == "src":
            assert value.startswith("data:image/svg+xml;base64,")
        elif name == "href":
            assert value.startswith("#") and value[1:] in found.ids
        elif name not in ("lang", "charset"):
            assert "url(" not in value
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL)[1]
    assert "url(" not in style and "@import" not in style
    assert len(found.ids) == len(set(found.ids))
    assert [name for _, name, value in found.attributes if name == "alt" and not value] == []
    return found


def test_the_page_is_valid_and_loads_nothing(report):
    found = check(report[1].page)
    assert found.tags.count("img") == 4 and found.tags.count("table") > 10
    assert report[1].page.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_every_figure_and_table_is_a_file_too(report):
    _, files = report
    assert {path.suffix for path in files.figures} == {".png", ".svg"} and len(files.figures) == 8
    for path in files.figures:
        content = path.read_bytes()
        assert content.startswith(b"\x89PNG") if path.suffix == ".png" else content.rstrip().endswith(b"</svg>")
    for path in files.tables:
        rows = list(csv.reader(path.open(encoding="utf-8", newline="")))
        assert len(rows) > 1 and len({len(row) for row in rows}) == 1, path
    text = files.markdown.read_text(encoding="utf-8")
    linked = re.findall(r"\]\((figures/[^)]+)\)", text)
    assert linked and all((files.page.parent / name).is_file() for name in linked)
    assert not list(files.page.parent.rglob("*.partial"))


def test_the_same_results_give_the_same_files(report, tmp_path):
    results, files = report
    again = write_report(
        StudyResults.from_file(kept(results, tmp_path)), tmp_path / "again", max_drop=2.0, max_mb=60.0, max_ms=5.0
    )
    for one, other in zip((files.page, *files.figures), (again.page, *again.figures), strict=True):
        assert one.read_bytes() == other.read_bytes(), one.name


def kept(results, folder):
    path = folder / "results.json"
    path.write_text(results.as_json(), encoding="utf-8")
    return path


def test_failed_cells_are_listed_with_their_reasons(report):
    results, files = report
    failed = [one for one in results.records if one.state == "failed"]
    rows = list(csv.DictReader((files.page.parent / "tables" / "failed.csv").open(encoding="utf-8")))
    assert [row["cell"] for row in rows] == [one.cell for one in failed] and failed
    assert all(row["reason"] == one.reason for row, one in zip(rows, failed, strict=True))


def test_hostile_names_are_text_and_nothing_else(tmp_path):
    records = []
    for number, name in enumerate(HOSTILE):
        size, task = f"{name}", HOSTILE[-1 - number % 2] if number % 3 else "sst2"
        for methods in ((), ("qat",), ("mp", name)):
            records.append(
                record(task, size, methods, 0, 0.8 + number / 100, ms=1.0 + number, stored_bytes=10**6 * (number + 1),
                       paper_bytes=10**6 * (number + 1), held_out_score=0.8, rows=100,
                       settings={name: name, "sparsity": number})
            )  # fmt: skip
        records.append(record(task, size, (), 1, state="failed", reason=f"{name} failed"))
    results = study(*records, common={HOSTILE[0]: HOSTILE[1]}, conditions={HOSTILE[2]: HOSTILE[6]},
                    metrics=dict.fromkeys(["sst2", *HOSTILE], HOSTILE[3]))  # fmt: skip
    files = write_report(results, tmp_path / "report", max_mb=5.0)
    found = check(files.page)
    texts = " ".join(found.texts)
    assert HOSTILE[0] in texts and HOSTILE[1] in texts and HOSTILE[5] in texts and HOSTILE[9] in texts
    assert "\x1b" not in texts and "\u202e" not in texts and "\\x1b[2J\\u202egpj" in texts
    lines = files.markdown.read_text(encoding="utf-8").splitlines()
    # Four spaces are a block of code, in which nothing is markup.
    assert not [line for line in lines if "<" in line.replace("\\<", "") and not line.startswith("    ")]
    written = {path for path in tmp_path.rglob("*") if path.is_file()}
    assert written == {files.page, files.markdown, files.results, *files.figures, *files.tables}
    assert all(re.fullmatch(r"[a-z0-9-]+\.(html|md|csv|json|png|svg)", path.name) for path in written)


def test_a_study_without_a_finished_cell_has_no_report(tmp_path):
    results = study(record(), record(seed=1, state="failed", score=0.5))
    with pytest.raises(InputError, match="no finished cell"):
        write_report(results, tmp_path / "report")
    assert not (tmp_path / "report").exists()
    with pytest.raises(InputError, match="no finished cell"):
        write_report(study(), tmp_path / "report")


def test_a_score_alone_is_enough(tmp_path):
    files = write_report(study(record(score=0.9)), tmp_path)
    assert check(files.page).tags.count("img") == 0 and files.figures == ()
    assert "missing" in files.page.read_text(encoding="utf-8")


def test_a_study_of_one_of_each_says_so_and_multiplies_nothing(tmp_path):
    combined = record(methods=("qat", "kd"), score=0.7)  # whose methods are not there alone
    text = write_report(study(record(score=0.8), combined), tmp_path).markdown.read_text("utf-8")
    assert "Cells done: 2 of 2. The study has 1 task, 1 size and 2 sets of methods." in text
    assert "no combination together with each of its methods" in text and "| of | methods |" not in text


@pytest.mark.parametrize("given", [{"tolerance": -1.0}, {"max_ms": float("nan")}, {"max_mb": float("inf")}])
def test_wrong_limits_are_refused(given, tmp_path):
    with pytest.raises(InputError, match=next(iter(given))):
        write_report(study(record(score=0.9)), tmp_path / "report", **given)


def test_a_folder_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file"):
        write_report(study(record(score=0.9)), tmp_path / "file")


@pytest.mark.parametrize(("library", "missing"), [("matplotlib", "figures"), ("jinja2", "page")])
def test_without_a_library_it_says_what_to_install(library, missing, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, library, None)
    with pytest.raises(InputError, match=rf"{missing}.*sparseq\[study\]"):
        write_report(study(record(score=0.9)), tmp_path / "report")
    assert not (tmp_path / "report").exists()


def test_the_page_is_written_last_and_never_in_part(tmp_path, monkeypatch):
    from sparseq.study.report import write

    written = []

    def full(path, content):
        if path.name == "report.md":
            raise MachineError("the disk is full")
        written.append(path.name)

    monkeypatch.setattr(write, "write_whole", full)
    with pytest.raises(MachineError):
        write_report(study(record(score=0.9)), tmp_path)
    assert written and "index.html" not in written
