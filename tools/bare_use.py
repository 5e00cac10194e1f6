"""What must work with nothing but what a plain `pip install` brings, and without a compiler. Ends with an error if not.

python -I tools/bare_use.py
"""

import contextlib
import importlib.util
import io
import sys
import tempfile

import torch
from torch import nn

import sparseq
from sparseq.cli import main
from sparseq.extras import MODULES
from sparseq.nn import QuantSparseLinear

# One layer, alone.
torch.manual_seed(0)
layer = QuantSparseLinear(64, 32)
x = torch.randn(5, 64, requires_grad=True)
layer(x).square().sum().backward()
assert x.grad is not None and x.grad.isfinite().all()
assert all(parameter.grad is not None for parameter in layer.parameters() if parameter.requires_grad)


# A model: converted, packed, saved and loaded.
def made() -> nn.Module:
    return nn.Sequential(nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 4))


packed = sparseq.pack(sparseq.convert(made(), sparsity=0.5, pattern="4x4"))
with tempfile.TemporaryDirectory() as folder:
    sparseq.save(packed, folder)
    loaded = sparseq.load(folder, made())
assert torch.equal(loaded(x), packed(x))
report = sparseq.size_report(loaded)

# Native code, which nobody could have built here.
backend = sparseq.backend(details=True)
assert "prebuilt" in backend, backend

# The commands say what they need.
present = [name for names in MODULES.values() for name in names if importlib.util.find_spec(name) is not None]
said = io.StringIO()
with contextlib.redirect_stderr(said):
    code = main(["predict", "folder", "a text"])
assert present or (code == 2 and "pip install 'sparseq[hf]'" in said.getvalue()), said.getvalue()

print(f"Python {sys.version.split()[0]}, torch {torch.__version__}: {backend}, {report.stored_bytes:,} bytes stored")
