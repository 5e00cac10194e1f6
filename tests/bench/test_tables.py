"""Result files as tables of the docs, and what the README lists."""

import json
from pathlib import Path

import sparseq_kernels
from bench import common, render, tables
from bench.kernels import OPS
from bench.studies import model
from sparseq.timing import alternate
from sparseq_kernels.registry import OPS as REGISTRY

ROOT = Path(__file__).parents[2]
KINDS = ("cpu", "gpu")


def test_the_readme_lists_every_program_operator_and_result_file():
    readme = (ROOT / "bench" / "README.md").read_text(encoding="utf-8")
    assert "`python -m bench run OP" in readme and "`python -m bench list`" in readme
    for folder in ("bench", "bench/studies", "tools"):
        modules = [path for path in sorted((ROOT / folder).glob("*.py")) if not path.name.startswith("__")]
        programs = [path.stem for path in modules if "__main__" in path.read_text(encoding="utf-8")]
        command = f"`python -m {folder.replace('/', '.')}"
        assert [name for name in programs if f"{command}.{name}" not in readme] == []
        assert [path.name for path in modules if path.stem not in programs and f"`{path.name}`" not in readme] == []
    # `python -m bench list` names the ops; what is a benchmark and no op is said here.
    assert [name for name in OPS if name not in REGISTRY and f"`{name}`" not in readme] == []
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
    assert "| size | layer | M = 1 | M = 16 |" in text and "time / time of peer" in text and "sparseq int8" in text
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


def test_every_result_is_shown_on_a_page_of_its_kind_of_machine():
    pages = {page: page.read_text(encoding="utf-8") for page in tables.PAGES}
    shown = {
        kind: "".join(t for page, t in pages.items() if tables.KINDS.get(page.name, kind) == kind) for kind in KINDS
    }
    results = [json.loads(path.read_text()) for path in (ROOT / "bench" / "results").glob("*.json")]
    missing = set()
    for result in results:
        kind = "gpu" if "gpu" in (result.get("machine") or {}) else "cpu"
        if f"<!-- table: {result['name']} -->" not in shown[kind]:
            missing.add((result["name"], kind))
    assert missing == set() and {result["name"] for result in results} >= {"int8_linear", "qat_step"}
    # The page for CPUs has a place for every public op, with results or not.
    public = [op for op in REGISTRY if op in sparseq_kernels.__all__]
    assert len(public) > 10 and [op for op in public if f"<!-- table: {op} -->" not in shown["cpu"]] == []


def test_a_table_without_results_says_so_and_an_open_marker_is_refused(tmp_path):
    assert tables.filled("<!-- table: none -->\n<!-- end -->", tmp_path).count(render.NO_RESULTS) == 1
    page = tmp_path / "page.md"
    page.write_text("<!-- table: none -->\n")
    assert tables.main(["--page", str(page), "--check"]) == 2


def test_a_result_is_named_after_the_machine():
    described = {"cpu": "Intel(R) Xeon(R) Processor @ 2.50GHz", "threads": 2, "flags": ["avx2", "avx512_vnni"]}
    assert common.slug(described) == "intel-xeon-processor-2-50ghz-avx512-vnni-2t"
    # Two generations of one name are two machines.
    assert common.slug({"cpu": "AMD EPYC", "threads": 1, "flags": ["avx2", "fma"]}) == "amd-epyc-avx2-1t"
    assert common.slug({"cpu": "Other", "threads": 1, "flags": []}) == "other-1t"


def test_every_kept_result_lies_under_the_name_of_its_machine():
    for path in common.RESULTS.glob("*.json"):
        result = json.loads(path.read_text())
        if "machine" in result:
            assert path.stem == f"{result['name']}-{common.slug(result['machine'])}", path.name
