"""Names of the files of a model folder, and of the entries in the header of the weights."""

WEIGHTS = "model.safetensors"
CONFIG = "config.json"
# The subfolder that files are written to before they are moved into place.
STAGING = ".saving"
# In it, while the files are moved: the config of the weights that are still in place.
PREVIOUS = "previous.json"

# The header's text entries: the layout, and the sha256 over everything else.
KEY = "sparseq"
CHECKSUM = "sha256"
# 1: without "config", "dtypes" and "sentinels", so that config.json is not covered by the checksum.
FORMAT_VERSION = 2
READABLE = (1, 2)

# The quantization method in config.json of a model with sparseq layers.
QUANTIZATION = "quantization_config"
METHOD = "sparseq"
