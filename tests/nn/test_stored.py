"""What a file says of a layer is checked before anything is made of it."""

import copy
import json

import pytest
import torch

from sparseq.nn import LAYERS, QuantEmbedding, QuantSparseLinear, calibrate
from sparseq.nn.stored import check_settings, shape_of, tensor_specs
from sparseq_kernels import InputError


def masked(layer, sparsity=0.5):
    layer.set_mask(torch.ops.sparseq.magnitude_mask([layer.weight], sparsity, str(layer.pattern))[0])
    return layer


def static(scale):
    model = torch.nn.Sequential(QuantSparseLinear(8, 16, activation="static", scale=scale))
    return calibrate(model, [{"input": torch.randn(2, 8)}])[0]


def examples():
    """Layers of every class, format, number of bits and option that is in the settings."""
    training = {
        "linear": QuantSparseLinear(8, 16),
        "linear without bias": QuantSparseLinear(8, 16, bias=False, dtype=torch.bfloat16),
        "static": static("max"),
        "static, learned": static("lsq"),
        "embedding": QuantEmbedding(8, 4, padding_idx=0, max_norm=2.0),
        "embedding, pruned": masked(QuantEmbedding(8, 4, pattern="2x2")),
    }
    for bits in (4, 8, 16, None):
        for pattern in ("unstructured", "2:4", "4x4"):
            training[f"{bits} bits, {pattern}"] = masked(QuantSparseLinear(16, 8, bits=bits, pattern=pattern))
    packed = {f"packed {name}": layer.pack() for name, layer in training.items()}
    for form in ("dense", "bitmask", "block_sparse"):
        packed[f"as {form}"] = masked(QuantSparseLinear(16, 8, pattern="4x4")).pack(form)
    packed["as semi_structured"] = masked(QuantSparseLinear(16, 8, pattern="2:4")).pack("semi_structured")
    return training | packed


EXAMPLES = examples()


def settings_of(layer):
    return json.loads(json.dumps(layer.settings()))


def test_every_class_is_among_the_examples():
    assert {type(layer).__name__ for layer in EXAMPLES.values()} == set(LAYERS)


@pytest.mark.parametrize("name", EXAMPLES)
def test_settings_foretell_the_state(name):
    layer = EXAMPLES[name]
    kind, settings = type(layer).__name__, settings_of(layer)
    check_settings(kind, settings, "here")
    specs = tensor_specs(kind, settings)
    assert {key: (spec.shape, spec.dtype) for key, spec in specs.items()} == {
        key: (tuple(tensor.shape), tensor.dtype) for key, tensor in layer.state_dict().items()
    }
    assert shape_of(kind, settings) == tuple(layer.weight.shape)
    with torch.device("meta"):
        assert set(type(layer).from_settings(settings).state_dict()) == set(specs)


def nodes(value, path=()):
    """The path of every value within, and of the whole."""
    yield path
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield from nodes(value[key], (*path, key))


def changed(settings, path, change):
    """`settings` with `change(value)` at the path, or without it where `change` is None."""
    box = [copy.deepcopy(settings)]
    inner, keys = box, [0, *path]
    for key in keys[:-1]:
        inner = inner[key]
    if change is None:
        del inner[keys[-1]]
    else:
        inner[keys[-1]] = change(inner[keys[-1]])
    return box


STRANGE = ({}, [], "text", "\x1b[2J\n", -1, 10**15, 0.5, float("nan"), float("inf"), [[[]]], {"a": {}}, True, None)


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_altered_node_is_refused_or_changes_what_is_foretold(name):
    """One sentence, whatever stands there; what passes all the same is a layer that can be made."""
    layer = EXAMPLES[name]
    kind, settings = type(layer).__name__, settings_of(layer)
    refused = 0
    for path in nodes(settings):
        for change in (None, *[lambda _, v=value: v for value in STRANGE]):
            box = changed(settings, path, change)
            if not box:
                continue
            try:
                check_settings(kind, box[0], "here")
            except InputError as error:
                text = str(error)
                assert text.startswith("here") and len(text) < 400 and text.isprintable()
                refused += 1
            else:
                with torch.device("meta"):
                    made = LAYERS[kind].from_settings(box[0])
                assert {key: tensor.shape for key, tensor in made.state_dict().items()} == {
                    key: spec.shape for key, spec in tensor_specs(kind, box[0]).items()
                }
    assert refused > 50


WEIGHT = {"format": "dense", "shape": [8, 16], "bits": 8, "kept_weights": 5}
BLOCKS = {"format": "block_sparse", "shape": [8, 16], "bits": 8, "block": [4, 4], "kept_blocks": 5}


@pytest.mark.parametrize(
    ("layout", "why"),
    [
        (WEIGHT | {"format": "csr"}, "format is 'csr', and must be one of 'dense', 'semi_structured'"),
        (WEIGHT | {"bits": True}, "bits of a dense weight is True"),
        (WEIGHT | {"bits": 8.0}, "bits of a dense weight is 8.0"),
        (WEIGHT | {"bits": 3}, "bits of a dense weight is 3"),
        (WEIGHT | {"format": "semi_structured", "bits": 4}, "bits of a semi_structured weight is 4"),
        (WEIGHT | {"format": "semi_structured", "kept_weights": 65}, "kept_weights is 65, .* from 0 to 64"),
        (WEIGHT | {"format": "semi_structured", "shape": [8, 18]}, "shape has 18 columns, .* multiple of 4"),
        (WEIGHT | {"kept_weights": -(10**15)}, "kept_weights is -1000000000000000"),
        (WEIGHT | {"kept_weights": 129}, "kept_weights is 129, and must be a whole number from 0 to 128"),
        (WEIGHT | {"shape": [8, 16, 1]}, "shape is .8, 16, 1., and must be a list of two"),
        (WEIGHT | {"shape": [2**31, 1]}, r"shape\[0\] is 2147483648"),
        (WEIGHT | {"shape": [2**30, 2**30]}, "shape is 1073741824 x 1073741824, and a weight has at most"),
        (BLOCKS | {"block": [1, 3_000_000_000]}, r"block\[1\] is 3000000000"),
        (BLOCKS | {"block": [0, 4]}, r"block\[0\] is 0"),
        (BLOCKS | {"block": [3, 4]}, "blocks of 3 x 4 do not divide a weight of 8 x 16"),
        (BLOCKS | {"shape": [0, 0], "block": [2**30, 2**30]}, "do not divide a weight of 0 x 0"),
        (BLOCKS | {"block": [1, 1]}, "only that of a bitmask weight is 1 x 1"),
        (BLOCKS | {"format": "bitmask"}, "only that of a bitmask weight is 1 x 1"),
        (BLOCKS | {"kept_blocks": 9}, "kept_blocks is 9, and must be a whole number from 0 to 8"),
        (BLOCKS | {"kept_weights": 9}, "has 'kept_weights', which is none of"),
        ({"format": "dense"}, "has no 'shape'"),
        ({"format": ["dense"]}, "format is .'dense'., and must be one of"),
    ],
)
def test_a_layout_that_no_format_has(layout, why):
    settings = {"weight": layout, "bias": None, "static": False, "dtype": "float32"}
    with pytest.raises(InputError, match=rf"^here: weight.*{why}"):
        check_settings("PackedLinear", settings, "here")


@pytest.mark.parametrize("dtype", ["int8", "float8_e4m3fn", "Tensor", "nn", "__name__", "complex64"])
def test_a_dtype_is_one_of_a_table(dtype):
    settings = {"weight": WEIGHT, "bias": dtype, "static": False, "dtype": "float32"}
    with pytest.raises(
        InputError, match=r"here: bias is .* must be one of 'float32', 'float16', 'bfloat16', 'float64'"
    ):
        check_settings("PackedLinear", settings, "here")


def test_an_unknown_class_is_refused():
    with pytest.raises(InputError, match="here: class is 'Linear', and must be one of 'QuantSparseLinear'"):
        check_settings("Linear", {}, "here")
