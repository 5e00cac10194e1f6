"""The main job on real input, by a fixed recipe: `python -m sparseq.demo` (`make demo`).

MiniLM-L6 is fine-tuned on rated movie-review snippets as the teacher; a student of three of its layers is trained twice
from the same start, plainly, and with QAT + KD (with synonym augmentation) + MP; the compressed one is packed, saved,
loaded back and evaluated. Broken off at any moment, the same command goes on; run again, it shows its results.

Both students are trained for the same epochs at the same rate, and in fp32 on every processor: a recipe whose outcome
depends on the processor is not one. `bench.studies.demo_seeds` says how much the outcome varies with the seed.
"""
