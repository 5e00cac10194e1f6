"""Model folders: one checked `model.safetensors` (any mix of plain, training and packed layers), config and tokenizer.

The file's metadata holds what is needed to rebuild the model around the tensors: the class and settings of every
sparseq layer, the names under which a shared tensor appears again, the model's class, the sha256 of config.json, and a
sha256 over all of that and every tensor's bytes. Nothing is unpickled, and nothing is fetched.
"""

from .folder import Folder, open_folder
from .names import CONFIG, WEIGHTS
from .read import is_saved, layer_names, load, read_metadata, verify
from .rebuild import rebuilt
from .state import Contents, contents
from .write import save

__all__ = [
    "CONFIG",
    "WEIGHTS",
    "Contents",
    "Folder",
    "contents",
    "is_saved",
    "layer_names",
    "load",
    "open_folder",
    "read_metadata",
    "rebuilt",
    "save",
    "verify",
]
