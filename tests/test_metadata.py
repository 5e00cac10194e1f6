"""What pyproject.toml, CITATION.cff and the packages say of the project is the same everywhere."""

import re
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

import sparseq
from sparseq.extras import BUILDS_ON, MODULES
from sparseq_kernels.triton.runtime.availability import LOWEST_VERSION
from tools.versions import project, python_for

ROOT = Path(__file__).parent.parent
PROJECT = project()
EXTRAS = {extra: [Requirement(line) for line in lines] for extra, lines in PROJECT["optional-dependencies"].items()}

IMPORTED_AS = {"scikit-learn": "sklearn", "pyyaml": "yaml", "tomli-w": "tomli_w"}


@pytest.mark.parametrize("extra", MODULES)
def test_the_modules_of_each_extra_are_those_that_it_installs(extra: str) -> None:
    here = [one for one in EXTRAS[extra] if one.marker is None or one.marker.evaluate() or "sys_platform" in str(one)]
    below = [name for one in here if one.name == "sparseq" for name in one.extras]
    assert below == ([BUILDS_ON[extra]] if extra in BUILDS_ON else [])
    names = {IMPORTED_AS.get(one.name, one.name) for one in here} - {"sparseq", "torch"}
    assert names == set(MODULES[extra])


def test_all_is_every_extra_of_users() -> None:
    below = {name for one in EXTRAS["all"] for name in one.extras}
    assert below | set(BUILDS_ON.values()) == set(MODULES)


def test_the_lowest_triton_is_that_of_the_kernels() -> None:
    (triton,) = EXTRAS["gpu"]
    assert str(triton.specifier) == f">={'.'.join(map(str, LOWEST_VERSION))}"


def test_the_version_and_the_repository_are_the_same_everywhere() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert PROJECT["version"] == sparseq.__version__ == citation["version"]
    assert citation["repository-code"] == PROJECT["urls"]["Repository"] and citation["license"] == PROJECT["license"]
    assert [one["identifiers"][0]["value"] for one in citation["references"]] == ["arXiv:2208.09684"]
    for page in PROJECT["urls"].values():
        assert page.startswith(PROJECT["urls"]["Repository"])
        path = re.sub(r".*/blob/main/", "", page)
        assert path == page or (ROOT / path).exists()


def test_the_classifiers_begin_at_the_oldest_python() -> None:
    listed = [line.rpartition(" ")[2] for line in PROJECT["classifiers"] if ":: Python :: 3." in line]
    assert f">={listed[0]}" == PROJECT["requires-python"]
    assert [int(one.partition(".")[2]) for one in listed] == list(range(10, 10 + len(listed)))


def test_the_workflow_asks_for_targets_and_pythons_that_there_are() -> None:
    text = (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
    jobs = yaml.safe_load(text)["jobs"]
    targets = re.findall(r"^([\w -]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    known = {name for line in targets for name in line.split()}
    versions = jobs["versions"]
    assert versions["continue-on-error"] is True and not {"continue-on-error"} & {*jobs["test"], *jobs["install"]}
    listed = [line.rpartition(" ")[2] for line in PROJECT["classifiers"] if ":: Python :: 3." in line]
    assert jobs["install"]["strategy"]["matrix"]["python"] == listed
    for one in versions["strategy"]["matrix"]["include"]:
        assert one["python"] == python_for(one["versions"])
        assert f"test-{one['versions']}" in known
    assert [step["run"] for step in jobs["test"]["steps"] if "run" in step] == [".ci/run"]
