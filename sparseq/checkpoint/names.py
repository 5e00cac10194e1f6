"""What the files of a model folder, and the entries of the weights' header, are called."""

WEIGHTS = "model.safetensors"
CONFIG = "config.json"
# The sub-folder that files are written into before they are moved into place.
STAGING = ".saving"
# In it, while the files are moved: the config that belongs to the weights that are still in place.
PREVIOUS = "previous.json"

# Of the header's text entries: the layout, and the sha256 over everything else.
KEY = "sparseq"
CHECKSUM = "sha256"
# 1: without "config", "dtypes" and "sentinels", so that config.json is not covered by the checksum.
FORMAT_VERSION = 2
READABLE = (1, 2)

# What config.json names as the quantization of a model with sparseq layers.
QUANTIZATION = "quantization_config"
METHOD = "sparseq"
