"""A WordPiece vocabulary of which each character is a piece of its own, as in BERT's."""

import random
from string import ascii_lowercase

SPECIAL = ["[PAD]", "[unused0]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def pieces(words: list[str], more: int = 0, seed: int = 0) -> dict[str, int]:
    """Ids by piece: special ones with an unused one among them, all letters but z, the words, and `more` random pieces
    of two to four letters."""
    draw, letters = random.Random(seed), [*ascii_lowercase[:-1], "[", "]", "0"]
    found = [*SPECIAL, *letters, *(f"##{letter}" for letter in letters), *words]
    while len(found) < 64 + len(words) + more:
        piece = "".join(draw.choice("abcde") for _ in range(draw.randrange(2, 5)))
        piece = draw.choice(["", "##"]) + piece
        if piece not in found:
            found.append(piece)
    return {piece: number for number, piece in enumerate(found)}
