"""The claims of `findings`."""

from .comparisons import Comparison, Finding, configured, fisher, pruned

STUDY, BEST, WHICH_LAYERS, FULL = "minilm", "minilm-best", "minilm-layers", "minilm-full"
PLAIN, QAT, KD, QAT_KD = (configured(methods) for methods in ("none", "qat", "kd", "qat,kd"))
PTQ, PTQ_4 = configured("ptq", epochs=0.0), configured("ptq", bits=4, epochs=0.0)
PTQ_4_MSE = configured("ptq", bits=4, scale="mse", epochs=0.0)
STATIC = configured("ptq", activation="static", epochs=0.0)
STATIC_RANDOM = configured("ptq", activation="static", calibration_data="random", epochs=0.0)
SMALL = configured("qat,kd", vocabulary="seen", bits=4)
SMALL_PRUNED = configured("qat,kd,mp", vocabulary="seen", bits=4, sparsity=0.6)
SMALL_HALF = configured("qat,kd,mp", vocabulary="seen", bits=4, sparsity=0.5)
SMALL_6 = configured("qat,kd", vocabulary="seen", bits=4, epochs=1.0, lr=5e-5)
TEACHER = configured("none", epochs=2.0)
ALL = "qat,kd,mp"
LONGER = configured("qat,kd", epochs=12.0)
HALF = {pattern: fisher(ALL, pattern, sparsity=0.5) for pattern in ("unstructured", "1x4", "4x4", "64x64", "2:4")}
COPIES, COPIES_KD = configured("none", augment_copies=1), configured("kd", augment_copies=1)
BY_LAMP = pruned(ALL, "unstructured", scope="lamp")
SEEN = configured("qat,kd", vocabulary="seen")
SCOPES = ("lamp", "normalized", "layer")
ALL_THREE, QAT_MP, MP = configured(ALL), configured("qat,mp"), configured("mp")
"""Of the study of whole training files, in which nothing but the methods varies."""
WHOLE = ((MP, PLAIN), (QAT_MP, QAT), (ALL_THREE, QAT_KD))
"""Pruned to 60 % in 4 x 4 blocks, beside the same without."""
SHARES = (0.4, 0.6, 0.8)
SIX, FEWER = (("6L", "6L"),), (("4L", "4L"), ("3L", "3L"), ("2L", "2L"))

FINDINGS = (
    Finding(
        "Quantization to 8 bits, in training or after it, costs less than a point",
        (
            Comparison(STUDY, QAT, PLAIN, 1.0),
            Comparison(STUDY, PTQ, PLAIN, 1.0),
            Comparison(STUDY, QAT, PTQ, 1.0),
        ),
    ),
    Finding(
        "4 bits after training cost six layers less than 2.5 points",
        (
            Comparison(STUDY, PTQ_4, PLAIN, 2.5, SIX),
            Comparison(STUDY, PTQ_4, PLAIN, None, FEWER),
        ),
        "Fewer layers seem to lose more, by about two standard errors.",
    ),
    Finding(
        "Fitting scales of 4 bits to the least squared error changes that by less than a point",
        (Comparison(STUDY, PTQ_4_MSE, PTQ_4, 1.0),),
    ),
    Finding(
        "Training with 16 bits costs less than a point beside fp32, and with 4 bits less than 3 beside 8",
        (
            Comparison(STUDY, configured("qat", bits=16), PLAIN, 1.0),
            Comparison(STUDY, configured("qat", bits=4), QAT, 3.0),
            Comparison(STUDY, configured("qat,kd", bits=4), QAT_KD, 3.0),
            Comparison(STUDY, configured("qat", bits=4), PTQ_4_MSE),
        ),
        "Encoders of 16 bits do not run fused: they take half the bytes, and more time than fp32.",
    ),
    Finding(
        "Static ranges need no data: random tokens do as well as training rows, within 1.5 points",
        (
            Comparison(STUDY, STATIC_RANDOM, STATIC, 1.5),
            Comparison(STUDY, STATIC, PTQ, 2.0),
        ),
    ),
    Finding(
        "Removing 60 % by magnitude costs more in 4 x 4 blocks than weight by weight",
        (
            Comparison(STUDY, pruned("mp", "4x4"), PLAIN, "worse"),
            Comparison(STUDY, pruned("mp", "unstructured"), PLAIN),
            Comparison(STUDY, pruned(ALL, "4x4"), pruned(ALL, "unstructured"), "worse"),
            Comparison(STUDY, pruned("mp", "4x4"), PLAIN, "worse", SIX, "stsb"),
            Comparison(STUDY, pruned("mp", "4x4"), pruned("mp", "unstructured"), "worse", SIX, "stsb"),
            Comparison(STUDY, pruned(ALL, "4x4"), pruned(ALL, "unstructured"), "worse", SIX, "stsb"),
        ),
    ),
    Finding(
        "By magnitude, blocks lose to fewer layers that take as long",
        (
            Comparison(STUDY, pruned(ALL, "4x4"), QAT_KD, "worse", (("6L", "4L"),)),
            Comparison(STUDY, pruned(ALL, "4x4"), QAT_KD, None, (("4L", "3L"), ("3L", "2L"))),
        ),
    ),
    Finding(
        "In blocks, ranking by the loss that a removal adds keeps more than ranking by magnitude",
        (
            Comparison(STUDY, fisher("mp", "4x4"), pruned("mp", "4x4"), "better"),
            Comparison(STUDY, fisher(ALL, "4x4"), pruned(ALL, "4x4"), "better"),
            Comparison(STUDY, fisher("mp", "4x4"), pruned("mp", "4x4"), "better", SIX, "stsb"),
            Comparison(STUDY, fisher(ALL, "4x4"), pruned(ALL, "4x4"), "better", SIX, "stsb"),
            Comparison(STUDY, fisher("mp", "unstructured"), pruned("mp", "unstructured")),
            Comparison(STUDY, fisher(ALL, "unstructured"), pruned(ALL, "unstructured")),
            Comparison(STUDY, fisher("mp", "4x4"), PLAIN, "worse"),
            Comparison(STUDY, fisher("mp", "4x4"), PLAIN, None, SIX, "stsb"),
            Comparison(STUDY, fisher("mp", "4x4"), fisher("mp", "unstructured"), 2.0),
        ),
        "So it is what `sparseq compress --methods mp` does unless told otherwise. Weight by weight it seems to be "
        "better too, by about two standard errors.",
    ),
    Finding(
        "By the loss that a removal adds, six pruned layers lose at most 2 points to four whole ones that take as long",
        (
            Comparison(BEST, SMALL_HALF, SMALL, -2.0, (("6L", "4L"),)),
            Comparison(BEST, SMALL_PRUNED, SMALL, -2.0, (("6L", "4L"),)),
            Comparison(BEST, SMALL_HALF, SMALL, None, (("6L", "3L"),)),
            Comparison(BEST, SMALL_PRUNED, SMALL, None, (("4L", "3L"),)),
            Comparison(STUDY, fisher(ALL, "4x4"), QAT_KD, -2.0, (("6L", "4L"), ("4L", "3L"))),
            Comparison(STUDY, fisher(ALL, "4x4", epochs=12.0), LONGER, None, (("6L", "4L"),)),
            Comparison(STUDY, fisher(ALL, "4x4", epochs=12.0), LONGER, None, (("4L", "3L"),)),
        ),
        "The first four are trained on all rows, one run each. Six layers of which half is removed seem to be better "
        "than four whole ones (0, 2, 4 and 5, which may not be the best), by about two standard errors. Three whole "
        "ones are faster: both are on the front of accuracy and time.",
    ),
    Finding(
        "Quantizing a pruned model after training is as good as all methods at once, within 2.5 points",
        (
            Comparison(STUDY, fisher("mp,ptq", "4x4"), fisher("mp", "4x4"), 1.0),
            Comparison(STUDY, fisher("mp,ptq", "unstructured"), fisher("mp", "unstructured"), 1.0),
            Comparison(STUDY, fisher(ALL, "4x4"), fisher("mp,ptq", "4x4"), 2.5),
            Comparison(STUDY, fisher(ALL, "unstructured"), fisher("mp,ptq", "unstructured"), 2.5),
        ),
        "60 % removed by the loss that it adds, 4 epochs of 1,200 rows. It needs no teacher and no int8 training.",
    ),
    Finding(
        "Half the weights can go in any pattern, within 2.5 points of going one by one",
        (
            *(Comparison(STUDY, HALF[one], HALF["unstructured"], -2.5) for one in ("1x4", "4x4", "64x64", "2:4")),
            Comparison(STUDY, HALF["64x64"], HALF["4x4"], -2.0),
            Comparison(STUDY, HALF["4x4"], QAT_KD, -2.5),
        ),
        "Ranked by the loss that a removal adds. A CPU gains time from blocks of 4x4 and 64x64.",
    ),
    Finding(
        "Trained three times as long, models lose less than 4 points to the removal of 60 % in blocks",
        (
            Comparison(STUDY, LONGER, QAT_KD),
            Comparison(STUDY, fisher(ALL, "4x4", epochs=12.0), fisher(ALL, "4x4")),
            Comparison(STUDY, fisher(ALL, "4x4", sparsity=0.8, epochs=12.0), fisher(ALL, "4x4", sparsity=0.8)),
            Comparison(STUDY, fisher(ALL, "4x4", epochs=12.0), LONGER, -4.0),
            Comparison(STUDY, fisher(ALL, "4x4", sparsity=0.8, epochs=12.0), LONGER),
        ),
        "12 epochs of 1,200 rows beside 4.",
    ),
    Finding(
        "By magnitude, scopes other than global differ by less than 2.5 points",
        (
            *(Comparison(STUDY, pruned(ALL, "4x4", scope=one), pruned(ALL, "4x4"), 2.5) for one in SCOPES[1:]),
            Comparison(STUDY, pruned(ALL, "4x4", scope="global"), pruned(ALL, "4x4"), None, (("6L", "6L"),)),
            Comparison(STUDY, pruned(ALL, "4x4", scope="global"), pruned(ALL, "4x4"), None, (("3L", "3L"),)),
            *(Comparison(STUDY, pruned(ALL, "unstructured", scope=one), BY_LAMP, 2.5) for one in SCOPES[1:]),
            Comparison(STUDY, BY_LAMP, pruned(ALL, "unstructured")),
        ),
        "Where no scope is named, it is LAMP for blocks and global for single weights. Blocks ranked over all layers "
        "by magnitude (global) cost three layers much here, and six nothing.",
    ),
    Finding(
        "Embeddings of 4 bits cost less than 2 points and save three tenths of the bytes",
        (
            Comparison(STUDY, configured("qat,kd", embedding_bits=4), QAT_KD, 2.0),
            Comparison(STUDY, SEEN, QAT_KD),
            Comparison(STUDY, configured("qat,kd", vocabulary="seen", embedding_bits=4), SEEN),
            Comparison(STUDY, pruned(ALL, "unstructured", prune_embeddings=True), pruned(ALL, "unstructured")),
        ),
        "Many words of the other rows are not among those of the 1,200 training rows, which the seen vocabulary has.",
    ),
    Finding(
        "A copy of each row with synonyms, and so twice the steps, is worth as much without a teacher as with one",
        (
            Comparison(STUDY, COPIES, PLAIN),
            Comparison(STUDY, COPIES_KD, KD),
            Comparison(STUDY, COPIES_KD, COPIES, 1.5),
            Comparison(STUDY, configured("qat,kd", augment_copies=1), COPIES, 1.5),
        ),
        "With as many steps, copies are not better than the rows alone (the study of the defaults).",
    ),
    Finding(
        "Distillation from the same 1,200 rows changes less than 1.5 points",
        (Comparison(STUDY, KD, PLAIN, 1.5), Comparison(STUDY, QAT_KD, QAT, 1.5)),
        "These are 152 steps. The paper's students have more of them, and augmented rows.",
    ),
    Finding(
        "The last layer alone learns the task and the first does not; two to four with the last are as good as without",
        (
            Comparison(WHICH_LAYERS, PLAIN, PLAIN, "better", (("1L-5", "1L-0"),)),
            Comparison(WHICH_LAYERS, PLAIN, PLAIN, 3.0, (("2L-05", "2L-03"),)),
            Comparison(WHICH_LAYERS, PLAIN, PLAIN, 3.0, (("3L-025", "3L-024"),)),
            Comparison(WHICH_LAYERS, PLAIN, PLAIN, 3.0, (("4L-0235", "4L-0134"),)),
        ),
        "Within 3 points, on the development set. `--layers N` keeps those of the first column: on held-out rows two "
        "with the last are better (the study's report).",
    ),
    Finding(
        "Dropping the tokens that no training row has saves three tenths of the bytes and costs less than 2 points",
        (
            Comparison(
                BEST,
                configured("ptq", vocabulary="seen", scale="mse", epochs=0.0),
                configured("ptq", scale="mse", epochs=0.0),
                2.0,
            ),
            Comparison(
                BEST,
                configured("ptq", vocabulary="seen", bits=4, scale="mse", epochs=0.0),
                configured("ptq", bits=4, scale="mse", epochs=0.0),
                2.0,
            ),
        ),
    ),
    Finding(
        "Trained on all rows with 4 bits, six layers, pruned or not, and three stay within 3 points of the teacher",
        (
            Comparison(BEST, SMALL_6, TEACHER, 3.0, SIX),
            Comparison(BEST, SMALL_HALF, TEACHER, 3.0, SIX),
            Comparison(BEST, SMALL_PRUNED, TEACHER, 3.0, SIX),
            Comparison(BEST, SMALL, TEACHER, 3.0, (("3L", "6L"),)),
        ),
    ),
    Finding(
        "On whole training files 8 bits and distillation change less than a point of SST-2",
        (
            Comparison(FULL, QAT, PLAIN, 1.0),
            Comparison(FULL, KD, PLAIN, 1.0),
            Comparison(FULL, QAT_KD, PLAIN, 1.0),
            Comparison(FULL, QAT, PLAIN, task="stsb"),
            Comparison(FULL, KD, PLAIN, task="stsb"),
        ),
    ),
    Finding(
        "On whole training files the removal of 60 % in blocks costs six layers less than 2 points of SST-2",
        (
            *(Comparison(FULL, one, other, 2.0, SIX) for one, other in WHOLE),
            *(Comparison(FULL, one, other, "worse", (("4L", "4L"), ("3L", "3L"))) for one, other in WHOLE),
            *(Comparison(FULL, one, other, 3.0, SIX, "stsb") for one, other in WHOLE),
        ),
        "By the loss that a removal adds. Models of four layers and three are worse for it, on SST-2.",
    ),
    Finding(
        "On whole training files six layers without 60 % of their weights lose at most 2 points of SST-2 to four whole "
        "ones, and are better on STS-B",
        (
            *(Comparison(FULL, one, other, -2.0, (("6L", "4L"),)) for one, other in WHOLE),
            *(Comparison(FULL, one, other, "better", (("6L", "4L"),), "stsb") for one, other in WHOLE),
            *(Comparison(FULL, one, other, None, (("4L", "3L"),), "stsb") for one, other in WHOLE),
            Comparison(STUDY, fisher(ALL, "4x4"), QAT_KD, None, (("6L", "4L"),)),
        ),
        "In int8 the two take about the same time, as the last line shows of the small study. Which layers to keep was "
        "chosen on SST-2. So try both on a task of your own.",
    ),
    Finding(
        "With few rows of STS-B six layers without 60 % of their weights are better than four whole ones",
        (
            *(
                Comparison(STUDY, one, one, "worse", (("4L", "6L"), ("3L", "6L")), "stsb")
                for one in (PLAIN, QAT, QAT_KD)
            ),
            Comparison(STUDY, fisher("mp", "4x4"), PLAIN, "better", (("6L", "4L"),), "stsb"),
            Comparison(STUDY, pruned("mp", "4x4"), PLAIN, "worse", (("4L", "4L"),), "stsb"),
            Comparison(STUDY, fisher(ALL, "4x4"), QAT_KD, "better", (("6L", "4L"),), "stsb"),
        ),
        "In int8 the two take about the same time, as the last line shows. With 1,200 rows fewer layers learn little "
        "of this task.",
    ),
    Finding(
        "With few rows of STS-B six layers lose less than 4 points to the removal of 40, 60 or 80 % of their weights",
        (
            *(Comparison(STUDY, fisher(ALL, "4x4", sparsity=share), QAT_KD, 4.0, SIX, "stsb") for share in SHARES),
            *(
                Comparison(STUDY, fisher(ALL, "unstructured", sparsity=share), QAT_KD, 4.0, SIX, "stsb")
                for share in SHARES
            ),
            Comparison(STUDY, fisher(ALL, "4x4", sparsity=0.8), QAT_KD, "better", (("6L", "4L"),), "stsb"),
        ),
        "Ranked by the loss that a removal adds, 12 epochs of 1,200 rows. So pruned to 80 % they are better than four "
        "whole layers and faster, as the last line shows.",
    ),
)
