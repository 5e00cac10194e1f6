"""A trial of saving and loading without a file, used before hours of training."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from sparseq.errors import InputError
from sparseq.nn.unwrap import unwrapped
from sparseq.reading import strict_json

from .architecture import config_class
from .build import build
from .config import check_values, config_text, digest
from .header import LARGEST_HEADER, encode, parse_header
from .layout import read_layout
from .names import CHECKSUM, CONFIG, WEIGHTS
from .skeleton import check_state, fill, place_layers
from .state import contents

__all__ = ["rebuilt"]


def rebuilt(model: nn.Module) -> nn.Module:
    """The transformers model that `load` would rebuild from what `save` would write, in eval mode.

    Nothing is written or copied: the result shares its tensors with `model`, and may only be inspected or run forward.
    Raises InputError if `save` would refuse the model, or if `load` would refuse the file.
    """
    model = unwrapped(model)
    held = contents(model)
    config = config_text(model, held)
    tensors = held.stored()
    header = {**held.metadata(config=digest(config.encode())), CHECKSUM: "0" * 64}
    written = encode(tensors, header)
    if len(written) > LARGEST_HEADER:
        raise InputError(f"the file's header would be longer than {LARGEST_HEADER:,} bytes, which load() refuses")
    folder = Path("the saved folder")  # for messages; there is no file
    read = parse_header(written[8:], len(written) + sum(tensor.nbytes for tensor in tensors.values()), folder / WEIGHTS)
    layout = read_layout(read, folder / WEIGHTS)
    values = strict_json(config.encode(), str(folder / CONFIG))
    check_values(values, str(folder / CONFIG), config_class(layout.architecture))
    made = place_layers(build(values, layout, read, folder), layout, folder / WEIGHTS)
    check_state(made, layout, read, folder / WEIGHTS)
    fill(made, layout, held.tensors)
    return made.eval()
