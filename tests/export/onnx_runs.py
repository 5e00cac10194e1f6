"""A small model to export."""

import torch
from torch import Tensor, nn


class Tagger(nn.Module):
    """Tokens [batch, length] -> scores [batch, length, 5] of each, and logits [batch, 3]: five linear layers, of which
    two get one input, and one gets a matrix."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(20, 16)
        self.up, self.gate = nn.Linear(16, 24), nn.Linear(16, 24)
        self.down, self.norm = nn.Linear(24, 16), nn.LayerNorm(16)
        self.head, self.pool = nn.Linear(16, 5, bias=False), nn.Linear(16, 3)

    def forward(self, tokens: Tensor, scale: Tensor) -> dict[str, Tensor]:
        x = self.embed(tokens)
        x = self.norm(x + self.down(torch.sigmoid(self.gate(x)) * self.up(x)))
        return {"scores": self.head(x), "logits": self.pool(x[:, 0]) * scale}


def tagger_inputs(rows: int, length: int, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(20, (rows, length), generator=generator)
    return {"tokens": tokens, "scale": torch.rand(rows, 1, generator=generator)}
