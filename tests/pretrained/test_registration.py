"""The quantizer is registered with transformers, whichever of the two is imported first."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from pretrained_models import IDS, output

import sparseq
from sparseq.checkpoint import load

ORDERS = {
    "sparseq first": "import sparseq\nassert 'transformers' not in sys.modules\nimport transformers",
    "transformers first": "import transformers\nfrom transformers import AutoModel\nimport sparseq",
    "models first": "from transformers import BertModel\nimport sparseq\nassert 'sparseq.hf.quantizer' in sys.modules",
    "by the command line": "import sparseq.cli\nassert 'transformers' not in sys.modules",
    "sparseq.nn alone": "import sparseq.nn\nassert 'transformers' not in sys.modules",
}


# Each is a process that imports all of transformers.
@pytest.mark.parametrize(
    "order", [pytest.param(o, marks=[pytest.mark.slow] if n > 1 else []) for n, o in enumerate(ORDERS)]
)
def test_whichever_is_imported_first(order: str, folders: dict[str, Path], python: Callable[..., str]) -> None:
    code = (
        f"import sys\n{ORDERS[order]}\n"
        "import torch\nfrom transformers import AutoModelForSequenceClassification\n"
        "import transformers.quantizers.auto as auto, inspect\n"
        "assert 'sparseq' in auto.AUTO_QUANTIZER_MAPPING and 'def register_quantizer' in inspect.getsource(auto)\n"
        "assert not any(getattr(finder, 'module', '').startswith('transformers') for finder in sys.meta_path)\n"
        "model = AutoModelForSequenceClassification.from_pretrained(sys.argv[1])\n"
        f"ids = torch.tensor({IDS.tolist()})\n"
        "print(model(ids, attention_mask=(ids != 0).long()).logits.tolist())"
    )
    found = torch.tensor(json.loads(python(code, str(folders["packed"])).splitlines()[-1]))
    torch.testing.assert_close(found, output(load(folders["packed"])))


@pytest.mark.parametrize("broken", ["register_quantizer = None", "del register_quantizer", "class HfQuantizer: pass"])
def test_another_transformers_is_imported_all_the_same(broken: str, tmp_path: Path, python: Callable[..., str]) -> None:
    package = tmp_path / "transformers" / "quantizers"
    package.mkdir(parents=True)
    (tmp_path / "transformers" / "__init__.py").touch()
    (package / "__init__.py").write_text("from . import auto\n")
    (package / "base.py").touch()
    (package / "auto.py").write_text(f"AUTO_QUANTIZER_MAPPING = {{}}\nregister_quantizer = 1\n{broken}\n")
    code = (
        f"import sys, warnings\nsys.path.insert(0, {str(tmp_path)!r})\nimport sparseq\n"
        "with warnings.catch_warnings(record=True) as caught:\n"
        "    warnings.simplefilter('always')\n    import transformers.quantizers\n"
        "print([str(one.message) for one in caught])"
    )
    assert "cannot register with this transformers" in python(code)


def test_registering_twice_does_nothing() -> None:
    import transformers.quantizers.auto as auto

    before = dict(auto.AUTO_QUANTIZER_MAPPING)
    sparseq.register_with_transformers()
    assert before == auto.AUTO_QUANTIZER_MAPPING and "sparseq" in before
