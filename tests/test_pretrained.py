"""transformers' own loaders on folders that `save` wrote: right with sparseq imported, an error without it."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fresh import FreshProcesses
from safetensors.torch import load_file
from torch import nn

import sparseq
from sparseq.checkpoint import CONFIG, WEIGHTS, load, read_metadata, save
from sparseq.errors import InputError
from sparseq.nn import Packed, calibrate, convert, named_layers, pack
from sparseq.nn.save_pretrained import SavedBySparseq

IDS = torch.tensor([[2, 7, 9, 3, 0], [2, 11, 3, 0, 0]])
MASK = (IDS != 0).long()


def model(family: str = "Bert", head: str = "ForSequenceClassification", **changes: Any) -> Any:
    import transformers

    torch.manual_seed(0)
    settings = {"vocab_size": 40, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    settings |= {"intermediate_size": 64, "max_position_embeddings": 64, "pad_token_id": 0}
    if family == "DistilBert":
        settings |= {"dim": settings.pop("hidden_size"), "hidden_dim": settings.pop("intermediate_size")}
        settings |= {"n_layers": settings.pop("num_hidden_layers"), "n_heads": settings.pop("num_attention_heads")}
    config = getattr(transformers, f"{family}Config")(**{**settings, **changes})
    return getattr(transformers, f"{family}{head}")(config).eval()


def static(plain: nn.Module, **settings: Any) -> nn.Module:
    return calibrate(convert(plain, activation="static", **settings), [{"input_ids": IDS}])


VERSIONS: dict[str, Callable[[], Any]] = {
    "training": lambda: convert(model(), sparsity=0.5),
    "training, learned and static": lambda: static(model(), scale="lsq", sparsity=0.5, pattern="4x4"),
    "training, embeddings pruned": lambda: convert(model(), sparsity=0.5, prune_embeddings=True),
    "training, one layer": lambda: convert(model(), include=("*.0.attention.self.query",)),
    "training, bf16": lambda: convert(model().bfloat16(), sparsity=0.5),
    "training, tied": lambda: convert(model(head="ForMaskedLM"), sparsity=0.5),
    "training, encoder alone": lambda: convert(model(head="Model"), sparsity=0.5),
    "packed": lambda: pack(convert(model())),
    "packed 60 %": lambda: pack(convert(model(), sparsity=0.6)),
    "packed 4x4": lambda: pack(convert(model(), sparsity=0.6, pattern="4x4")),
    "packed int4 2:4": lambda: pack(convert(model(), bits=4, sparsity=0.5, pattern="2:4", prune_embeddings=True)),
    "packed int16": lambda: pack(convert(model(), bits=16)),
    "packed, pruned only": lambda: pack(convert(model(), bits=None, sparsity=0.6)),
    "packed static": lambda: pack(static(model())),
    "packed, one layer": lambda: pack(convert(model(), include=("*.0.attention.self.query",))),
    "packed bf16": lambda: pack(convert(model().bfloat16(), sparsity=0.6)),
    "packed, tied": lambda: pack(convert(model(head="ForMaskedLM"))),
    "packed, encoder alone": lambda: pack(convert(model(head="Model"))),
    "packed DistilBert": lambda: pack(convert(model("DistilBert"))),
    "packed Roberta": lambda: pack(convert(model("Roberta"))),
}
HEADS = {"Model": "AutoModel", "ForMaskedLM": "AutoModelForMaskedLM"}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Any) -> dict[str, Path]:
    """A saved folder of each version, and "plain"."""
    made = {}
    for name, make in {**VERSIONS, "plain": model}.items():
        made[name] = tmp_path_factory.mktemp("saved")
        save(make(), made[name], tiny_tokenizer)
    return made


def auto_class(folder: Path) -> Any:
    """The Auto class of the folder's own architecture."""
    import transformers

    (architecture,) = json.loads((folder / CONFIG).read_text())["architectures"]
    head = next((auto for suffix, auto in HEADS.items() if architecture.endswith(suffix)), None)
    return getattr(transformers, head or "AutoModelForSequenceClassification")


def output(loaded: Any) -> torch.Tensor:
    with torch.no_grad():
        return loaded(IDS, attention_mask=MASK)[0].float()


def assert_same(found: nn.Module, expected: nn.Module) -> None:
    """The same tensors, bit for bit, under the same names, tied and trained alike."""
    assert type(found) is type(expected) and not any(module.training for module in found.modules())
    for these, those in (
        (found.named_parameters(remove_duplicate=False), expected.named_parameters(remove_duplicate=False)),
        (found.named_buffers(remove_duplicate=False), expected.named_buffers(remove_duplicate=False)),
    ):
        mine, theirs = dict(these), dict(those)
        assert list(mine) == list(theirs)
        for name, tensor in mine.items():
            assert tensor.dtype == theirs[name].dtype and torch.equal(tensor, theirs[name]), name
            assert tensor.requires_grad == theirs[name].requires_grad, name
        ties = [[name for name in all_ if all_[name] is tensor] for all_ in (mine, theirs) for tensor in all_.values()]
        assert ties[: len(mine)] == ties[len(mine) :]


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
    return own(folder)(config).load_state_dict(load_file(folder / "model.safetensors"), strict=strict)

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


@pytest.fixture
def python(fresh: FreshProcesses) -> Callable[..., str]:
    """What code prints in a process that has imported torch alone."""

    def run(code: str, *arguments: str) -> str:
        done = fresh.run(f"import sys; sys.argv[1:] = {list(arguments)}\n{code}")
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


# Of what reads a folder the two that let most pass.
LENIENT = ("its own class", "load_state_dict, not strict")
# Read in every way by default.
WELL_READ = {
    "plain",
    "packed",
    "training",
    "packed, without quantization_config",
    "training, without quantization_config",
}


@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_without_sparseq_nothing_is_loaded_of_any_layer(
    every: bool, folders: dict[str, Path], tmp_path: Path, python: Callable[..., str]
) -> None:
    # As transformers' own warning advises where it does not know a quantization.
    places = dict(folders)
    for name in ("packed", "training"):
        places[f"{name}, without quantization_config"] = copy = tmp_path / name
        shutil.copytree(folders[name], copy)
        config = json.loads((copy / CONFIG).read_text())
        assert config.pop("quantization_config") == {"quant_method": "sparseq"}
        (copy / CONFIG).write_text(json.dumps(config))
    asked = {str(folder): [] if every or name in WELL_READ else LENIENT for name, folder in places.items()}
    found = json.loads(python(WITHOUT, json.dumps(asked)).splitlines()[-1])
    outcomes = {name: found[str(folder)] for name, folder in places.items()}
    assert set(outcomes) >= WELL_READ and len(outcomes["packed"]) == 8
    assert set(outcomes.pop("plain").values()) == {"loaded"}
    loaded = [(name, reader) for name, found in outcomes.items() for reader in found if found[reader] == "loaded"]
    assert loaded == []


@pytest.mark.parametrize("version", VERSIONS)
def test_with_sparseq_the_model_is_that_of_load(version: str, folders: dict[str, Path]) -> None:
    folder = folders[version]
    state = torch.get_rng_state()
    found = auto_class(folder).from_pretrained(folder)
    assert torch.equal(torch.get_rng_state(), state)  # nothing was initialized at random
    expected = load(folder)
    assert_same(found, expected)
    torch.testing.assert_close(output(found), output(expected))
    torch.testing.assert_close(output(found), output(VERSIONS[version]().eval()))


@pytest.mark.parametrize("version", ["training", "training, learned and static", "packed 60 %", "packed static"])
def test_the_encoder_alone(version: str, folders: dict[str, Path]) -> None:
    from transformers import AutoModel

    found: Any = AutoModel.from_pretrained(folders[version])
    assert_same(found, load(folders[version]).bert)  # type: ignore[arg-type]


@pytest.mark.parametrize("version", ["training, encoder alone", "packed, encoder alone"])
def test_a_new_head_on_a_saved_encoder(version: str, folders: dict[str, Path]) -> None:
    from transformers import AutoModelForTokenClassification

    found, info = AutoModelForTokenClassification.from_pretrained(
        folders[version], num_labels=3, output_loading_info=True
    )
    assert set(info["missing_keys"]) == {"classifier.weight", "classifier.bias"} and not info["mismatched_keys"]
    assert type(found.classifier) is nn.Linear and found.classifier.weight.std() > 0
    expected = load(folders[version])
    del expected.pooler  # this class has none
    found.bert.pooler = None
    expected.pooler = None  # type: ignore[assignment]
    assert_same(found.bert, expected)


@pytest.mark.parametrize("version", ["training", "packed"])
def test_the_report_names_nothing_that_is_as_it_should_be(version: str, folders: dict[str, Path]) -> None:
    _, info = auto_class(folders[version]).from_pretrained(folders[version], output_loading_info=True)
    assert {key: value for key, value in info.items() if value} == {}


@pytest.mark.parametrize("version", ["training", "packed 60 %"])
def test_pipeline(version: str, folders: dict[str, Path]) -> None:
    from transformers import AutoTokenizer, pipeline

    (found,) = pipeline("text-classification", str(folders[version]))("the film was good")
    encoded = AutoTokenizer.from_pretrained(folders[version])("the film was good", return_tensors="pt")
    with torch.no_grad():
        logits = load(folders[version])(**encoded).logits
    assert found["score"] == pytest.approx(float(logits.softmax(-1).max()), abs=1e-5)


@pytest.mark.parametrize("place", ["cpu", "auto", {"": "cpu"}], ids=str)
@pytest.mark.parametrize("version", ["training", "training, tied", "packed", "packed, tied"])
def test_device_map(version: str, place: Any, folders: dict[str, Path]) -> None:
    if place == "auto" and torch.cuda.is_available():
        pytest.skip("the model is placed on the GPU")
    found = auto_class(folders[version]).from_pretrained(folders[version], device_map=place)
    assert_same(found, load(folders[version]))


@pytest.mark.parametrize("version", ["training", "packed"])
def test_offloading_is_refused(version: str, folders: dict[str, Path], tmp_path: Path) -> None:
    places: dict[str, Any] = {"bert": "cpu", "classifier": "disk", "dropout": "cpu"}
    with pytest.raises(InputError, match="are not offloaded"):
        auto_class(folders[version]).from_pretrained(folders[version], device_map=places, offload_folder=tmp_path)


@pytest.mark.parametrize("dtype", ["auto", "float32", torch.float32])
@pytest.mark.parametrize("version", ["training", "packed"])
def test_the_dtype_of_the_file(version: str, dtype: Any, folders: dict[str, Path]) -> None:
    found = auto_class(folders[version]).from_pretrained(folders[version], dtype=dtype)
    assert_same(found, load(folders[version]))


@pytest.mark.parametrize("version", ["training", "training, bf16", "packed", "packed bf16"])
def test_another_dtype_is_cast_to_as_by_to(version: str, folders: dict[str, Path]) -> None:
    dtype = torch.float32 if "bf16" in version else torch.bfloat16
    found = auto_class(folders[version]).from_pretrained(folders[version], dtype=dtype)
    assert found.dtype == dtype and found.config.dtype == dtype
    assert_same(found, load(folders[version]).to(dtype))


def test_a_class_that_does_not_fit_is_refused(folders: dict[str, Path]) -> None:
    for version in ("training", "packed"):
        for ignored in (False, True):
            with pytest.raises(InputError, match=r"'classifier' is 3 x 32 .* in the model, and 2 x 32 in"):
                auto_class(folders[version]).from_pretrained(
                    folders[version], num_labels=3, ignore_mismatched_sizes=ignored
                )


@pytest.mark.parametrize("version", ["training", "packed"])
def test_altered_folders_are_refused(version: str, folders: dict[str, Path], tmp_path: Path) -> None:
    auto, copy = auto_class(folders[version]), tmp_path / "copy"
    shutil.copytree(folders[version], copy)
    whole = bytearray((copy / WEIGHTS).read_bytes())
    whole[-3] ^= 1
    (copy / WEIGHTS).write_bytes(whole)
    with pytest.raises(InputError, match="was altered after it was saved"):
        auto.from_pretrained(copy)
    shutil.copy(folders[version] / WEIGHTS, copy / WEIGHTS)
    text = (copy / CONFIG).read_text()
    (copy / CONFIG).write_text(text.replace('"layer_norm_eps": 1e-12', '"layer_norm_eps": 1e-05'))
    with pytest.raises(InputError, match="was altered after it was saved"):
        auto.from_pretrained(copy)
    (copy / CONFIG).write_text(text)
    model().save_pretrained(tmp_path / "foreign")
    shutil.copy(tmp_path / "foreign" / WEIGHTS, copy / WEIGHTS)
    with pytest.raises(InputError, match=r"was not written by sparseq\.save"):
        auto.from_pretrained(copy)


def test_a_plain_model_is_not_quantized_on_loading(folders: dict[str, Path]) -> None:
    from sparseq.pretrained import SparseqConfig

    with pytest.raises(InputError, match="quantizes a model that is loaded already"):
        auto_class(folders["plain"]).from_pretrained(folders["plain"], quantization_config=SparseqConfig())
    assert "quantization_config" not in json.loads((folders["plain"] / CONFIG).read_text())


def test_training_layers_are_trained_and_saved_as_after_convert(folders: dict[str, Path], tmp_path: Path) -> None:
    from transformers import Trainer, TrainingArguments

    found = auto_class(folders["training"]).from_pretrained(folders["training"])
    assert not hasattr(found, "hf_quantizer") and not hasattr(found.config, "quantization_config")
    rows = [{"input_ids": IDS[0], "attention_mask": MASK[0], "labels": torch.tensor(1)}] * 4
    arguments = TrainingArguments(str(tmp_path), max_steps=2, report_to="none", use_cpu=True, disable_tqdm=True)
    before = output(found.eval())
    trainer = Trainer(found, arguments, train_dataset=rows)
    trainer.train()
    assert not torch.allclose(output(found.eval()), before, atol=1e-6)
    again = auto_class(folders["training"]).from_pretrained(folders["training"])
    again.load_state_dict(load_file(tmp_path / "checkpoint-2" / WEIGHTS))
    torch.testing.assert_close(output(again), output(found))
    save(found, tmp_path / "saved")
    assert_same(load(tmp_path / "saved"), found)


PACKED: dict[str, Callable[[Path], Any]] = {
    "pack": lambda folder: VERSIONS["packed"](),
    "load": load,
    "load into a skeleton": lambda folder: load(folder, model()),
    "from_pretrained": lambda folder: auto_class(folder).from_pretrained(folder),
    "a part of pack's": lambda folder: VERSIONS["packed"]().bert,
    "a part of load's": lambda folder: load(folder).bert,
    "a part of from_pretrained's": lambda folder: auto_class(folder).from_pretrained(folder).bert,
}


@pytest.mark.parametrize("way", PACKED)
def test_packed_models_are_not_saved_without_their_layout(way: str, folders: dict[str, Path], tmp_path: Path) -> None:
    packed = PACKED[way](folders["packed"])
    with pytest.raises(ValueError, match=r"sparseq\.save\(model, folder\)"):
        packed.save_pretrained(tmp_path / "no")
    assert not (tmp_path / "no").exists()
    save(packed, tmp_path / "yes")
    again = load(tmp_path / "yes")
    assert_same(again, packed)
    torch.testing.assert_close(output(again), output(packed))


def test_trainer_refuses_a_packed_model(folders: dict[str, Path], tmp_path: Path) -> None:
    from transformers import Trainer, TrainingArguments

    found = auto_class(folders["packed"]).from_pretrained(folders["packed"])
    with pytest.raises(ValueError, match="cannot perform fine-tuning on purely quantized models"):
        Trainer(found, TrainingArguments(str(tmp_path), report_to="none"))
    found._hf_peft_config_loaded = True  # as peft's integration marks a model with adapters
    Trainer(found, TrainingArguments(str(tmp_path), report_to="none"))


@pytest.mark.parametrize("way", ["pack's", "load's"])
def test_trainer_evaluates_a_packed_model(way: str, folders: dict[str, Path], tmp_path: Path) -> None:
    from transformers import Trainer, TrainingArguments

    packed = VERSIONS["packed"]() if way == "pack's" else load(folders["packed"])
    rows = [{"input_ids": ids, "attention_mask": mask} for ids, mask in zip(IDS, MASK, strict=True)]
    found = Trainer(packed, TrainingArguments(str(tmp_path), report_to="none", use_cpu=True)).predict(rows)
    torch.testing.assert_close(torch.from_numpy(found.predictions), output(packed))


def test_what_transformers_asks_of_a_models_quantizer_is_there() -> None:
    import transformers

    found = set()
    for path in Path(transformers.__file__).parent.rglob("*.py"):
        if not {"integrations", "quantizers", "models"} & set(path.parts):
            found |= set(re.findall(r"\b(?:self|model)\.hf_quantizer\.(\w+)", path.read_text(encoding="utf-8")))
    assert {"is_compileable", "is_trainable"} <= found
    assert not [name for name in found if not hasattr(SavedBySparseq(), name)]


@pytest.mark.parametrize("way", ["pack", "load", "from_pretrained"])
def test_packed_models_generate(way: str, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=40,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        eos_token_id=None,
    )
    packed: Any = pack(convert(LlamaForCausalLM(config).eval()))
    save(packed, tmp_path)
    if way != "pack":
        packed = load(tmp_path) if way == "load" else AutoModelForCausalLM.from_pretrained(tmp_path)
    ids = torch.tensor([[4, 7, 9, 3]])
    found = packed.generate(ids, max_new_tokens=3, do_sample=False, pad_token_id=0)
    assert found.shape == (1, 7)
    expected = packed(found[:, :-1]).logits[:, 3:].argmax(-1)
    assert torch.equal(found[:, 4:], expected)


@pytest.mark.parametrize("version", ["training", "packed"])
def test_the_files_own_tensors_load_into_layers_of_their_kind(version: str, folders: dict[str, Path]) -> None:
    found = VERSIONS[version]()
    with torch.no_grad():
        for tensor in found.state_dict().values():
            tensor.zero_()
    found.load_state_dict(load_file(folders[version] / WEIGHTS))
    assert_same(found.eval(), load(folders[version]))
    assert all(isinstance(layer, Packed) == (version == "packed") for _, layer in named_layers(found))


def test_saving_again_leaves_a_models_config_alone(folders: dict[str, Path], tmp_path: Path) -> None:
    loaded: Any = load(folders["packed"])
    before = loaded.config.to_dict()
    assert "quantization_config" not in before
    save(loaded, tmp_path)
    assert loaded.config.to_dict() == before
    assert (tmp_path / CONFIG).read_bytes() == (folders["packed"] / CONFIG).read_bytes()
    assert read_metadata(tmp_path) == read_metadata(folders["packed"])


ORDERS = {
    "sparseq first": "import sparseq\nassert 'transformers' not in sys.modules\nimport transformers",
    "transformers first": "import transformers\nfrom transformers import AutoModel\nimport sparseq",
    "models first": "from transformers import BertModel\nimport sparseq\nassert 'sparseq.pretrained' in sys.modules",
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
