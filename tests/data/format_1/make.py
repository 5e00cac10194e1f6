"""Makes the folders beside this script: small models in format 1, which test that files of that format still load.

Run it with a version of sparseq that writes format 1 (the last commit that did is 9307e86):
`PYTHONPATH=.:kernels python tests/data/format_1/make.py`. Each folder holds what `sparseq.save` wrote, and
`logits.json`, what the model gave for `IDS` in evaluation.
"""

import json
from pathlib import Path

import torch
from transformers import BertConfig, BertForMaskedLM, BertForSequenceClassification

from sparseq import calibrate, convert, pack, save

IDS = [[2, 7, 9, 3, 0], [2, 11, 3, 0, 0]]
LSQ = {"sparsity": 0.5, "pattern": "4x4", "scale": "lsq", "activation": "static"}
# Settings of `convert`, and whether the model is packed; None is a plain one.
MODELS = {
    "plain": (None, False),
    "training": (LSQ, False),
    "embeddings": ({"sparsity": 0.5, "prune_embeddings": True}, False),
    "packed": ({"sparsity": 0.5, "activation": "static"}, True),
    "packed_4x4": ({"sparsity": 0.5, "pattern": "4x4"}, True),
    "packed_int4": ({"bits": 4}, True),
    "packed_2_4": ({"sparsity": 0.5, "pattern": "2:4"}, True),
    "tied": ({}, True),
}


def main() -> None:
    config = BertConfig(
        vocab_size=16, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=8, pad_token_id=0,
    )  # fmt: skip
    batch = {"input_ids": torch.tensor(IDS)}
    for name, (settings, packed) in MODELS.items():
        torch.manual_seed(0)
        model = (BertForMaskedLM if name == "tied" else BertForSequenceClassification)(config).eval()
        if settings is not None:
            model = calibrate(convert(model, **settings), [batch])
        if packed:
            model = pack(model)
        folder = Path(__file__).parent / name
        save(model.eval(), folder)
        with torch.no_grad():
            logits = model(**batch).logits
        (folder / "logits.json").write_text(json.dumps(logits.tolist()) + "\n")


if __name__ == "__main__":
    main()
