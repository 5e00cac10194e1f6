"""Examples of training with sparseq, each a script of its own."""
