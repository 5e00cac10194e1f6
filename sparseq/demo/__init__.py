"""The main use of the library on real data, with a fixed recipe: `python -m sparseq.demo` (`make demo`).

MiniLM-L6 is fine-tuned on rated movie-review snippets as the teacher. A student with three of its layers is trained
twice from the same start: plainly, and with QAT + KD (with synonym augmentation) + MP. The compressed student is
packed, saved, loaded back and evaluated. After an interruption, the same command continues; after the end, it shows the
results again.

Both students are trained for the same number of epochs at the same learning rate, and in fp32 on every processor, so
that the recipe does not depend on the processor. `bench.studies.demo_seeds` measures how much the result varies with
the seed.
"""
