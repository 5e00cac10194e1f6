"""The encoders of transformers that run fused: where their parts are, what their forward takes and what it returns.

Each is registered by the name of its base model's class, so that transformers is not imported for it.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from operator import attrgetter
from typing import Any

from torch import Tensor, nn

from .outputs import make_output

# Parts of transformers that are looked at: not typed there.
Model = Any


@dataclass(frozen=True)
class LayerPaths:
    """Where the parts of an encoder's layer are, as attribute paths from the layer.

    `heads` is a number's name in the attention module, and so is `head_size`.
    """

    attention: str = "attention.self"
    heads: str = "num_attention_heads"
    head_size: str = "attention_head_size"
    query: str = "attention.self.query"
    key: str = "attention.self.key"
    value: str = "attention.self.value"
    attended: str = "attention.output.dense"
    attended_norm: str = "attention.output.LayerNorm"
    intermediate: str = "intermediate.dense"
    activation: str = "intermediate.intermediate_act_fn"
    output: str = "output.dense"
    output_norm: str = "output.LayerNorm"


@dataclass(frozen=True)
class LayerParts:
    """The modules of one encoder layer, in the order in which they run; `activation` may be a function.

    For x [..., H] a layer computes h = attended_norm(attended(attention(query(x), key(x), value(x))) + x), and returns
    output_norm(output(activation(intermediate(h))) + h).
    """

    heads: int
    head_size: int
    query: nn.Module
    key: nn.Module
    value: nn.Module
    attended: nn.Module
    attended_norm: nn.Module
    intermediate: nn.Module
    activation: Callable[[Tensor], Tensor]
    output: nn.Module
    output_norm: nn.Module


# What LayerPaths and LayerParts both name.
_PARTS = [part.name for part in fields(LayerParts) if part.name not in ("heads", "head_size")]


@dataclass(frozen=True)
class Family:
    """One architecture.

    encoder: the name of the model's module that holds the layers, in its list `layer`.
    inputs: the arguments of the model's forward that its `embeddings` take, by the same names.
    counts_positions: positions are numbered from `embeddings.padding_idx` + 1, without padding, and not from 0.
    result: the class of transformers.modeling_outputs that forward returns.
    position_bias: from the model and hidden states [1, L, H], what is added to attention scores, [1, heads, L, L].
    old_style: an option given as None is the configuration's, and a tuple has a place for a pooled output that is None.
    """

    result: str
    encoder: str = "encoder"
    inputs: tuple[str, ...] = ("input_ids", "token_type_ids", "position_ids", "inputs_embeds")
    counts_positions: bool = False
    paths: LayerPaths = field(default_factory=LayerPaths)
    position_bias: Callable[[Model, Tensor], Tensor] | None = None
    old_style: bool = False

    def layers_of(self, model: Model) -> list[LayerParts]:
        """The parts of each layer. AttributeError where the model is built otherwise."""
        return [self._parts(layer) for layer in model._modules[self.encoder].layer]

    def _parts(self, layer: nn.Module) -> LayerParts:
        parts = {name: attrgetter(getattr(self.paths, name))(layer) for name in _PARTS}
        attention = attrgetter(self.paths.attention)(layer)
        return LayerParts(getattr(attention, self.paths.heads), getattr(attention, self.paths.head_size), **parts)

    def embed(self, model: Model, given: dict[str, Any]) -> Tensor:
        """What enters the first layer, [B, L, H], by the model's own modules."""
        hidden: Tensor = model.embeddings(**{name: given.get(name) for name in self.inputs})
        if (project := model._modules.get("embeddings_project")) is not None:
            hidden = project(hidden)
        return hidden

    @property
    def has_pooler(self) -> bool:
        """Whether the model has a pooler, be it None."""
        return "Pooling" in self.result

    def make_result(self, values: dict[str, Any], return_dict: bool) -> Any:
        """What the model's forward returns, of the values by their names there, in order."""
        if not return_dict:
            return tuple(value for value in values.values() if value is not None or self.old_style)
        return make_output(self.result, values)


_BERT = Family("BaseModelOutputWithPoolingAndCrossAttentions")
_ROBERTA = replace(_BERT, counts_positions=True)
_DISTILBERT = Family(
    "BaseModelOutput",
    encoder="transformer",
    inputs=("input_ids", "position_ids", "inputs_embeds"),
    paths=LayerPaths(
        attention="attention",
        heads="n_heads",
        query="attention.q_lin",
        key="attention.k_lin",
        value="attention.v_lin",
        attended="attention.out_lin",
        attended_norm="sa_layer_norm",
        intermediate="ffn.lin1",
        activation="ffn.activation",
        output="ffn.lin2",
        output_norm="output_layer_norm",
    ),
)
_MPNET = Family(
    "BaseModelOutputWithPooling",
    inputs=("input_ids", "position_ids", "inputs_embeds"),
    counts_positions=True,
    paths=LayerPaths(
        attention="attention.attn",
        query="attention.attn.q",
        key="attention.attn.k",
        value="attention.attn.v",
        attended="attention.attn.o",
        attended_norm="attention.LayerNorm",
    ),
    position_bias=lambda model, hidden: model.encoder.compute_position_bias(hidden),
    old_style=True,
)
# By the name of the base model's class, without its module: transformers.models.<any>.
FAMILIES = {
    "BertModel": _BERT,
    "RobertaModel": _ROBERTA,
    "XLMRobertaModel": _ROBERTA,
    "CamembertModel": _ROBERTA,
    "ElectraModel": Family("BaseModelOutputWithPastAndCrossAttentions"),
    "DistilBertModel": _DISTILBERT,
    "MPNetModel": _MPNET,
}


def family_of(cls: type[nn.Module]) -> Family | None:
    """The family of a base model's class; None for a class that is not exactly one of transformers' own."""
    return FAMILIES.get(cls.__name__) if cls.__module__.startswith("transformers.models.") else None
