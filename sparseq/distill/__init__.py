"""Knowledge distillation: the student learns from a teacher's logits and, if asked, from its hidden states."""

from .cache import TeacherLogits
from .digest import digest_model, digest_texts, digest_tokenizer
from .hidden import HiddenStates, hidden_state_loss, layer_map
from .losses import distillation_loss, label_loss, soft_loss

__all__ = [
    "HiddenStates",
    "TeacherLogits",
    "digest_model",
    "digest_texts",
    "digest_tokenizer",
    "distillation_loss",
    "hidden_state_loss",
    "label_loss",
    "layer_map",
    "soft_loss",
]
