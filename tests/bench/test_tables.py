"""Result files as tables of the docs, and what the README lists."""

import json
from pathlib import Path

from bench import common, render, tables
from bench.kernels import OPS
from bench.studies import model
from sparseq.timing import alternate

ROOT = Path(__file__).parents[2]


def test_the_readme_lists_every_program_operator_and_result_file():
    readme = (ROOT / "bench" / "README.md").read_text(encoding="utf-8")
    assert "`python -m bench run OP" in readme and "`python -m bench list`" in readme
    for folder in ("bench", "bench/studies", "tools"):
        modules = [path for path in sorted((ROOT / folder).glob("*.py")) if not path.name.startswith("__")]
        programs = [path.stem for path in modules if "__main__" in path.read_text(encoding="utf-8")]
        command = f"`python -m {folder.replace('/', '.')}"
        assert [name for name in programs if f"{command}.{name}" not in readme] == []
        assert [path.name for path in modules if path.stem not in programs and f"`{path.name}`" not in readme] == []
    assert [op for op in OPS if f"`{op}`" not in readme] == []
    names = {json.loads(path.read_text())["name"] for path in (ROOT / "bench" / "results").glob("*.json")}
    assert [name for name in sorted(names - {*OPS}) if f"`{name}-" not in readme] == []


def kernel_rows():
    times = alternate({"sparseq": lambda: None, "peer": lambda: None}, 2, shortest=0)
    return [
        {"case": {"size": "tiny", "layer": "8 -> 8", "M": M, "step": "forward"}, **times.as_dict([("sparseq", "peer")])}
        for M in (1, 16)
    ]


def test_tables_are_rendered_checked_and_stable(tmp_path):
    results, page = tmp_path / "results", tmp_path / "page.md"
    common.write_result("int8_linear", kernel_rows(), {}, results)
    assert model.main(["--smallest", "--out", str(results)]) == 0
    marked = "<!-- table: {} -->\n{}<!-- end -->\n"
    page.write_text("# Page\n" + marked.format("int8_linear", "") + "text\n" + marked.format("model", "old\n"))
    switches = ["--page", str(page), "--results", str(results)]
    assert tables.main([*switches, "--check"]) == 1
    assert tables.main(switches) == 0 and tables.main([*switches, "--check"]) == 0
    text = page.read_text()
    assert "| size | layer | M = 1 | M = 16 |" in text and "time / time of peer" in text and "packed int8" in text
    assert "old" not in text and "\ntext\n" in text
    common.write_result("int8_linear", kernel_rows()[:1], {}, results)
    assert tables.main([*switches, "--check"]) == 1


def test_a_page_of_one_kind_of_machine_shows_no_other(tmp_path, monkeypatch):
    common.write_result("int8_linear", kernel_rows(), {}, tmp_path)
    [of_cpu] = common.read_results("int8_linear", tmp_path)
    gpu = of_cpu["machine"] | {"gpu": "A GPU", "driver": "1"}
    versions = of_cpu["versions"] | {"triton": "3"}
    common.write_json(tmp_path / "int8_linear-gpu.json", of_cpu | {"machine": gpu, "versions": versions})
    texts = {}
    for name in ("cpu", "gpu", "both"):
        page = tmp_path / f"{name}.md"
        page.write_text("<!-- table: int8_linear -->\n<!-- end -->\n")
        assert tables.main(["--page", str(page), "--results", str(tmp_path)]) == 0
        texts[name] = page.read_text()
    captions = {name: ("cores" in text, "A GPU" in text) for name, text in texts.items()}
    assert captions == {"cpu": (True, False), "gpu": (False, True), "both": (True, True)}


def test_every_op_is_shown_for_a_cpu():
    page = (ROOT / "docs" / "cpu.md").read_text(encoding="utf-8")
    shown = [op for op in OPS if f"<!-- table: {op} -->" in page]
    assert [op for op in OPS if op not in shown] == ["int8_linear_compiled", "packed_linear"]


def test_a_table_without_results_says_so_and_an_open_marker_is_refused(tmp_path):
    assert tables.filled("<!-- table: none -->\n<!-- end -->", tmp_path).count(render.NO_RESULTS) == 1
    page = tmp_path / "page.md"
    page.write_text("<!-- table: none -->\n")
    assert tables.main(["--page", str(page), "--check"]) == 2


def test_a_result_is_named_after_the_machine():
    described = {"cpu": "Intel(R) Xeon(R) Processor @ 2.50GHz", "threads": 2}
    assert common.slug(described) == "intel-xeon-processor-2-50ghz-2t"
