"""Without sparseq imported no folder with its layers is loaded, whichever way it is read."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from pretrained_models import VERSIONS

from sparseq.checkpoint import CONFIG

WITHOUT = """
import json, sys
import torch, transformers
from pathlib import Path
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModel, pipeline

transformers.logging.set_verbosity_error()

def own(folder):
    (name,) = json.loads((folder / "config.json").read_text())["architectures"]
    return getattr(transformers, name)

def state(folder, strict):
    config = AutoConfig.from_pretrained(folder)
    tensors = {}
    for file in folder.glob("model*.safetensors"):
        tensors |= load_file(file)
    return own(folder)(config).load_state_dict(tensors, strict=strict)

READERS = {
    "AutoModel": AutoModel.from_pretrained,
    "its own class": lambda folder: own(folder).from_pretrained(folder),
    "another head": lambda folder: transformers.AutoModelForTokenClassification.from_pretrained(folder),
    "another dtype": lambda folder: AutoModel.from_pretrained(folder, dtype=torch.bfloat16),
    "device_map": lambda folder: AutoModel.from_pretrained(folder, device_map="cpu"),
    "pipeline": lambda folder: pipeline("feature-extraction", str(folder)),
    "load_state_dict": lambda folder: state(folder, True),
    "load_state_dict, not strict": lambda folder: state(folder, False),
}
found = {}
for folder, names in json.loads(sys.argv[1]).items():
    for name in names or READERS:
        try:
            READERS[name](Path(folder))
            found.setdefault(str(folder), {})[name] = "loaded"
        except Exception as error:
            found.setdefault(str(folder), {})[name] = type(error).__name__
assert not any(name.partition(".")[0].startswith("sparseq") for name in sys.modules)
print(json.dumps(found))
"""

# Of what reads a folder the two that let most pass.
LENIENT = ("its own class", "load_state_dict, not strict")

# Read in every way by default.
WELL_READ = {
    "plain",
    "packed",
    "training",
    "packed, without quantization_config",
    "training, without quantization_config",
    "packed, in shards",
    "training, in shards",
}


@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_without_sparseq_nothing_is_loaded_of_any_layer(
    every: bool, folders: dict[str, Path], tmp_path: Path, python: Callable[..., str]
) -> None:
    # As transformers' own warning advises where it does not know a quantization.
    places = {version: folders[version] for version in ("plain", *VERSIONS)}
    for name in ("packed", "training"):
        places[f"{name}, without quantization_config"] = copy = tmp_path / name
        shutil.copytree(folders[name], copy)
        config = json.loads((copy / CONFIG).read_text())
        assert config.pop("quantization_config")["quant_method"] == "sparseq"
        (copy / CONFIG).write_text(json.dumps(config))
    for name in ("packed", "training"):
        places[f"{name}, in shards"] = tmp_path / f"{name}-shards"
        VERSIONS[name]().save_pretrained(tmp_path / f"{name}-shards", max_shard_size="10KB")
    asked = {str(folder): [] if every or name in WELL_READ else LENIENT for name, folder in places.items()}
    found = json.loads(python(WITHOUT, json.dumps(asked)).splitlines()[-1])
    outcomes = {name: found[str(folder)] for name, folder in places.items()}
    assert set(outcomes) >= WELL_READ and len(outcomes["packed"]) == 8
    assert set(outcomes.pop("plain").values()) == {"loaded"}
    loaded = [(name, reader) for name, found in outcomes.items() for reader in found if found[reader] == "loaded"]
    assert loaded == []
