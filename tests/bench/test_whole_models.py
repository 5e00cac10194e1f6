"""Whole models' times: workloads, what is timed and what is left out, the command, its goals and its figure."""

import math

import pytest
import torch
from conftest import write_rows

from bench import common, model_timing, render, runtimes, whole_models, workloads
from bench.check import WrongResultError
from bench.model_timing import Plan, Trial, check, measure
from bench.studies import model
from bench.whole_models import BASELINE, DENSE, sparse_name
from sparseq import InputError, convert, pack, save
from sparseq.nn import fused_way
from sparseq.train.progress import Reporter
from sparseq_kernels.cpu.encoder import why_no_bf16_attention

QUIET = Reporter(silent=True)
TINY = whole_models.SIZES["tiny"]
ONCE = Plan(1, 0.0, settle=0.0, slowest=math.inf)


def test_sentences_are_batched_in_their_order_and_padded_to_the_longest():
    rows = [[7] * length for length in (3, 5, *[2] * 31)]
    work = workloads.of_sentences("some", rows, padding=9)
    assert [tuple(batch["input_ids"].shape) for batch in work.batches] == [(32, 5), (1, 2)]
    assert work.batches[0]["input_ids"][0].tolist() == [7, 7, 7, 9, 9]
    assert work.batches[0]["attention_mask"][0].tolist() == [1, 1, 1, 0, 0]
    assert work.sentences == 33 and work.case["tokens"] == 70 and work.case["padded_tokens"] == 162


def test_the_built_in_lengths_are_those_of_sst2_dev():
    lengths = workloads.sst2_dev()
    assert len(lengths.tokens) == 872 and sum(lengths.tokens) == 21943
    assert (min(lengths.tokens), max(lengths.tokens)) == (4, 55)
    described = lengths.described()
    assert sum(described["histogram"].values()) == 872 and "Wang" in described["source"]
    work = workloads.of_lengths(100, lengths, limit=40)
    assert [len(batch["input_ids"]) for batch in work.batches] == [*[32] * 27, 8]
    assert max(batch["input_ids"].shape[1] for batch in work.batches) == 40


def test_the_longest_input_leaves_out_positions_that_no_token_has():
    from transformers import BertConfig, RobertaConfig

    bert, roberta = torch.nn.Module(), torch.nn.Module()
    bert.config = BertConfig(max_position_embeddings=512)
    roberta.config = RobertaConfig(max_position_embeddings=514, pad_token_id=1)
    assert whole_models.longest({"bert": bert}) == whole_models.longest({"roberta": roberta}) == 512


@pytest.fixture(scope="module")
def plain():
    return whole_models.random_model(TINY)


def test_a_workload_takes_about_the_seconds_that_it_is_given():
    plan = Plan(rounds=15, seconds=60.0, settle=0.0)
    assert plan.rounds_for([0.01, 0.02]) == 15
    assert plan.rounds_for([2.0, 4.0]) == 10
    assert plan.rounds_for([100.0]) == 5  # fewer would have no interval


def test_others_that_fail_are_named_with_the_reason_and_left_out(plain, monkeypatch):
    def right(batch):
        return plain(**batch).logits

    def slow(batch):
        return right(batch)

    def near(batch):
        return 1.1 * right(batch)

    def broken(batch):
        raise ValueError("no such kernel\nand more")

    def timed(run, batch):
        calls.append(run)
        # The first call of what is right compiles it.
        seconds = 3.0 if run is slow or (run is right and calls.count(right) == 1) else 0.1
        return run(batch), seconds

    calls = []
    monkeypatch.setattr(model_timing, "_timed", timed)
    others = {"right": right, "slow": slow, "wrong": lambda batch: -right(batch), "broken": broken}
    others |= {"its fp32": near, "its int8": near}
    trial = Trial("tiny", {BASELINE: plain}, others, {"missing": "it is not installed"})
    row = measure(trial, workloads.of_shape(100, 1, 4), Plan(1, 0.0, settle=0.0), QUIET)
    assert [*row["seconds"]] == [BASELINE, "right", "its int8"]
    assert row["logit_error"] == {"right": 0, "its int8": pytest.approx(0.1, rel=1e-4)}
    assert calls.count(slow) == 3
    for name, error in (("wrong", "2"), ("its fp32", "0.1")):
        reason = f"at 1 x 4 its logits: a relative error of {error} beside the reference"
        assert row["absent"].pop(name).startswith(reason)
    assert row["absent"] == {
        "missing": "it is not installed",
        "slow": f"at 1 x 4 a batch took 3 s, 30 times as long as {BASELINE}",
        "broken": "at 1 x 4 ValueError: no such kernel",
    }


def test_models_of_other_tasks_can_be_timed_side_by_side(plain):
    from transformers import BertForSequenceClassification

    other = BertForSequenceClassification(type(plain.config)(**{**plain.config.to_diff_dict(), "num_labels": 3})).eval()
    row = measure(Trial("tiny", {BASELINE: plain, "other": other}), workloads.of_shape(100, 2, 4), ONCE, QUIET)
    assert [*row["seconds"]] == [BASELINE, "other"] and row["logit_error"] == {}


def test_a_fault_of_our_own_is_an_error(plain):
    packed = pack(convert(plain))
    held = workloads.random_batch(100, 2, 4)
    check("packed", packed, held)
    packed.classifier.register_forward_hook(lambda *parts: parts[-1] + (0 if model_is_reference() else 1))
    with pytest.raises(WrongResultError):
        measure(Trial("tiny", {BASELINE: plain, DENSE: packed}), workloads.of_shape(100, 2, 4), ONCE, QUIET)


def test_rounding_that_a_model_amplifies_is_no_fault(monkeypatch):
    packed, held = pack(convert(whole_models.random_model(TINY))), workloads.random_batch(100, 2, 4)
    packed.classifier.register_forward_hook(lambda *parts: parts[-1] * (1 if model_is_reference() else 1.2))
    for noise, right in ((0.1, True), (0.02, False), (0.0, False)):
        monkeypatch.setattr(model_timing, "_noise", lambda *given, noise=noise: noise)
        if right:
            check("packed", packed, held)
        else:
            with pytest.raises(WrongResultError, match=r"above 0\.0[28]"):
                check("packed", packed, held)


def test_a_models_own_rounding_is_small_and_its_encoder_stays_fused():
    packed = pack(convert(whole_models.random_model(TINY)))
    with torch.inference_mode():
        before = fused_way(packed)
        assert 0 <= model_timing._noise(packed, workloads.random_batch(100, 2, 4)) < 0.5
        assert fused_way(packed) == before and before.name != "layer by layer"


def model_is_reference():
    import sparseq

    return sparseq.backend() == "reference"


def run(capsys, *arguments):
    code = model.main([*map(str, arguments), "--smallest"])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def test_only_some_candidates_are_timed(tmp_path, capsys):
    code, _, said = run(capsys, "--peers", "--only", "80%,dynamic", "--out", tmp_path)
    assert code == 0 and "setting up torch, quantize_dynamic" in said and "bf16" not in said
    [result] = common.read_results("model", tmp_path)
    for row in result["rows"]:
        assert [*row["seconds"]] == [BASELINE, sparse_name(0.8), "torch, quantize_dynamic"]
        rate = row["sentences_per_second"][BASELINE]
        batch = row["case"]["sentences"] if "sentences" in row["case"] else row["case"]["batch"]
        assert rate == pytest.approx(batch / row["seconds"][BASELINE]["median"])
    assert result["settings"]["lengths"]["histogram"] == {"3": 1, "4": 1, "5": 1}


def test_other_runtimes_need_not_be_there(monkeypatch, tmp_path, capsys):
    def missing(name):
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(runtimes, "import_module", missing)
    code, _, said = run(capsys, "--peers", "--only", "OpenVINO", "--out", tmp_path)
    assert code == 0 and "OpenVINO, int8: left out, onnx is not installed" in said
    assert "pip install -r bench/runtimes.txt" in said
    [result] = common.read_results("model", tmp_path)
    assert result["settings"]["absent"]["tiny"]["OpenVINO, fp32"] == "onnx is not installed"
    assert "Without OpenVINO, int8 in 2 of 2: onnx is not installed" in render.render("model", tmp_path)


def test_an_interruption_writes_nothing(monkeypatch, tmp_path, capsys):
    def interrupted(*given):
        raise KeyboardInterrupt

    monkeypatch.setattr(model, "measure", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(capsys, "--out", tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def packed_dir(tiny_model_dir, tmp_path_factory):
    folder = tmp_path_factory.mktemp("packed")
    [trained] = whole_models.folder_models([tiny_model_dir]).values()
    save(pack(convert(trained)), folder)
    return folder


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--shape", "8"], "--shape is '8': expected sentences x tokens, such as 8x128, or 'lengths'"),
        (["--shape", "0x8"], "--shape is '0x8'"),
        (["absent"], "there is no folder absent"),
        (["{packed}", "--peers"], "is packed: give an fp32 model"),
        (["{plain}", "--shape", "1x65"], "the models take 64 tokens at most"),
        (["--sentences", "{csv}"], "--sentences needs a tokenizer"),
        (["{plain}", "--sentences", "absent.csv"], "there is no file"),
        (["{plain}", "--sentences", "{csv}", "--label-column", "mark"], "has no column 'mark'"),
        (["{plain}", "--sentences", "{pairs}"], "holds pairs of texts"),
        (["{plain}", "--sentences", "{long}"], "has a sentence of 82 tokens: give --max-length 64"),
        (["{plain}", "--sentences", "{three}"], "gives 2 logits, and the labels have 3 classes"),
    ],
)
def test_bad_input_gets_one_sentence(given, said, tmp_path, capsys, tiny_model_dir, packed_dir, tiny_csv):
    pairs = write_rows(tmp_path / "pairs.csv", [{"sentence1": "a", "sentence2": "b", "label": i} for i in (0, 1)])
    three = write_rows(tmp_path / "three.csv", [{"sentence": "a film", "label": label} for label in (0, 1, 2)])
    long = write_rows(tmp_path / "long.csv", [{"sentence": "film " * 80}])
    places = {
        "long": long,
        "plain": tiny_model_dir,
        "packed": packed_dir,
        "csv": tiny_csv[1],
        "pairs": pairs,
        "three": three,
    }
    with pytest.raises(InputError) as error:
        run(capsys, *(word.format(**places) for word in given), "--out", tmp_path / "out")
    assert said in str(error.value)
    assert not (tmp_path / "out").exists()


def test_models_of_folders_are_scored_on_labelled_sentences(tmp_path, capsys, tiny_model_dir, packed_dir, tiny_csv):
    code, printed, _ = run(
        capsys, tiny_model_dir, packed_dir, "--peers", "--only", f"{DENSE},dynamic,{packed_dir.name}",
        "--sentences", tiny_csv[1], "--out", tmp_path,
    )  # fmt: skip
    assert code == 0
    [result] = common.read_results("model_trained", tmp_path)
    plain_row, scored = result["rows"]
    assert "scores" not in plain_row and scored["case"]["workload"] == "validation.csv, batches of 32"
    in_bf16 = [whole_models.BF16_ATTENTION] if why_no_bf16_attention() is None else []
    assert [*scored["scores"]] == [
        BASELINE, whole_models.LAYERED, DENSE, *in_bf16, packed_dir.name, "torch, quantize_dynamic",
    ]  # fmt: skip
    assert scored["scores"][DENSE] == scored["scores"][packed_dir.name]
    assert scored["scores"][BASELINE] == pytest.approx(accuracy(tiny_model_dir, tiny_csv[1]))
    assert result["settings"]["score"] == "accuracy" and result["settings"]["lengths"]["sentences"] == 40
    picture = tmp_path / f"model_trained-{common.slug(result['machine'])}.png"
    assert picture.read_bytes().startswith(b"\x89PNG") and f"written: {picture}" in printed
    assert "accuracy, %\n\n|  | validation.csv, batches of 32 |" in render.render("model_trained", tmp_path)


def accuracy(folder, file):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    trained, reader = AutoModelForSequenceClassification.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    rows = [line.rpartition(",") for line in file.read_text().splitlines()[1:]]
    with torch.no_grad():
        right = [
            int(trained(**reader(text, return_tensors="pt")).logits.argmax()) == int(label) for text, _, label in rows
        ]
    return sum(right) / len(right)


def test_sentences_without_labels_are_timed_alone(tmp_path, capsys, tiny_model_dir):
    texts = write_rows(tmp_path / "texts.csv", [{"sentence": "a film"}, {"sentence": "a plot and a film"}])
    code, _, _ = run(capsys, tiny_model_dir, "--only", DENSE, "--sentences", texts, "--out", tmp_path)
    [result] = common.read_results("model_trained", tmp_path)
    assert code == 0 and not any("scores" in row for row in result["rows"]) and "score" not in result["settings"]
    # One folder is one checkpoint, of which the sparse variants are made too.
    assert sparse_name(0.9) in result["rows"][-1]["seconds"]
    assert not list(tmp_path.glob("*.png"))


def test_lengths_of_own_sentences_can_be_had_for_random_models(tmp_path, capsys, tiny_model_dir, tiny_csv):
    given = ["--sentences", tiny_csv[1], "--tokenizer", tiny_model_dir, "--only", "50%", "--out", tmp_path]
    assert run(capsys, *given)[0] == 0
    [result] = common.read_results("model", tmp_path)
    assert result["rows"][-1]["case"]["sentences"] == 40 and "scores" not in result["rows"][-1]
