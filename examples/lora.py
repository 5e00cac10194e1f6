"""Adapters (LoRA, PEFT) over a converted model: the quantized weights stay, the adapters learn; merged and packed."""

from __future__ import annotations

from typing import Any

import torch
from datasets import load_dataset
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertForSequenceClassification, Trainer

import sparseq
from examples import small
from examples.classifier import accuracy
from examples.common import arguments, options, report, stored
from sparseq.hf import QATCallback


def main() -> None:
    chosen = options(__doc__, "google/bert_uncased_L-4_H-512_A-8")
    if chosen.smallest:
        tokenizer: Any = small.tokenizer()
        model: Any = small.model(BertForSequenceClassification)
        train, validation = small.reviews(), small.reviews(seed=1)
    else:
        tokenizer = AutoTokenizer.from_pretrained(chosen.model)
        model = AutoModelForSequenceClassification.from_pretrained(chosen.model, num_labels=2)
        data = load_dataset("nyu-mll/glue", "sst2")
        train, validation = data["train"], data["validation"]
    train, validation = (
        rows.map(lambda batch: tokenizer(batch["sentence"], truncation=True, max_length=64), batched=True)
        for rows in (train, validation)
    )

    # 1. Convert, and put adapters around the layers of attention. The head is trained as a whole.
    sparseq.convert(model, bits=8, exclude="*classifier*")
    adapters = LoraConfig(task_type="SEQ_CLS", r=8, target_modules=["query", "value"], modules_to_save=["classifier"])
    adapted: Any = get_peft_model(model, adapters)
    adapted.print_trainable_parameters()
    trainer = Trainer(
        adapted, arguments(chosen), train_dataset=train, processing_class=tokenizer, callbacks=[QATCallback()]
    )
    trainer.train()
    before = accuracy(trainer, validation)

    # 2. Merge the adapters into the weights, which are quantized anew, and pack.
    merged = adapted.merge_and_unload()
    sparseq.nn.refresh(merged)
    packed = sparseq.pack(merged)
    sparseq.save(packed, chosen.out / "packed", tokenizer)
    loaded = AutoModelForSequenceClassification.from_pretrained(chosen.out / "packed")
    rows = validation.select_columns(["input_ids", "attention_mask"]).with_format("torch")
    with torch.inference_mode():
        found = [int(loaded(row["input_ids"][None], row["attention_mask"][None]).logits.argmax()) for row in rows]
    after = sum(one == label for one, label in zip(found, validation["label"], strict=True)) / len(found)
    report({"adapters": (before, stored(merged)), "merged, packed": (after, stored(packed))}, "accuracy")


if __name__ == "__main__":
    main()
