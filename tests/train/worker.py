"""Run by torchrun, once a process: compresses by a recipe file, and leaves a digest of what each process has trained.

Arguments: the recipe file, the out folder, a folder for the digests, and the step to die at (0: none).
"""

import os
import sys
from pathlib import Path
from typing import Any

from torch import nn

from sparseq.distill import digest_model
from sparseq.train import Recipe, compress, distributed, trainer, training


def main(recipe: str, out: str, digests: str, die_at: str) -> None:
    step = trainer.CompressTrainer.training_step
    check = training.check_finite

    def dying_step(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self.state.global_step + 1 == int(die_at):
            os._exit(9)
        return step(self, *args, **kwargs)

    def digesting_check(model: nn.Module) -> None:
        check(model)
        (Path(digests) / str(distributed.rank())).write_text(digest_model(model))

    trainer.CompressTrainer.training_step = dying_step  # type: ignore[method-assign]
    training.check_finite = digesting_check
    compress(Recipe.from_file(recipe).replace(out=out))


if __name__ == "__main__":
    main(*sys.argv[1:])
