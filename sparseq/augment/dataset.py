"""Augmented copies of a whole dataset."""

from typing import TYPE_CHECKING

from sparseq.augment.synonyms import SynonymAugmenter
from sparseq.errors import InputError

if TYPE_CHECKING:
    from datasets import Dataset


def augment_dataset(dataset: "Dataset", augmenter: SynonymAugmenter) -> "Dataset":
    """Append augmented copies to a dataset: the original rows first, then the copies, in the rows' order.

    Args:
        dataset: with a column `text_a`, optionally `text_b` (both texts of a pair get replacements); a copy keeps
            its row's `label` and any other column.
        augmenter: draws by the row's position in `dataset`.

    Returns:
        A dataset with the same features. A row without a replaceable word gets no copy.

    Raises:
        InputError: no column `text_a`.
    """
    from datasets import concatenate_datasets

    if "text_a" not in dataset.column_names:
        raise InputError(f"the dataset to augment has no column text_a; its columns are {dataset.column_names}")
    parts = [name for name in ("text_a", "text_b") if name in dataset.column_names]
    columns = [dataset[name][:] for name in parts]
    rows: list[int] = []
    texts: dict[str, list[str]] = {name: [] for name in parts}
    for index, row in enumerate(zip(*columns, strict=True)):
        seen = {row}
        for copy in range(augmenter.copies):
            made = tuple(augmenter.variant(t, index, copy, part) for t, part in zip(row, ("", "b"), strict=False))
            if made in seen:
                continue
            seen.add(made)
            rows.append(index)
            for name, text in zip(parts, made, strict=True):
                texts[name].append(text)
    if not rows:
        return dataset
    copies = {**dataset.select(rows).to_dict(), **texts}
    return concatenate_datasets([dataset, type(dataset).from_dict(copies, features=dataset.features)])
