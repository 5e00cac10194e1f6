import pytest
from rich.console import Console

from sparseq.demo.comparison import ModelRow, bars, comparison_table, save_figure, verdict
from sparseq.paired import PairedAnswers


def rows(compressed=0.82):
    return [
        ModelRow("teacher", 0.85, 22_700_000, 90_900_000, 90_900_000, {1: 8.0, 32: 4.0}),
        ModelRow("plain student", 0.82, 17_400_000, 69_500_000, 69_600_000, {1: 4.0, 32: 2.0}),
        ModelRow("compressed student", compressed, 17_400_000, 14_200_000, 14_500_000, {1: 2.0, 32: 1.0}),
    ]


def shown(*what):
    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    for one in what:
        console.print(one)
    return console.export_text()


def test_the_table_has_every_number_and_its_ratio():
    text = shown(comparison_table(rows(), "title"))
    for number in (
        "85.0%",
        "17.4 M",
        "14.2 MB",
        "14.5 MB",
        "6.3 x smaller",
        "8.00 ms",
        "4.0 x faster",
        "1.3 x smaller",
    ):
        assert number in text
    assert text.count("against the teacher") == 3


def test_it_fits_a_terminal_of_80_columns():
    console = Console(width=80, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(comparison_table(rows(), "title"))
    assert "…" not in console.export_text() and "6.3 x smaller" in shown(comparison_table(rows(), "title"))


def test_bars_are_as_long_as_their_numbers():
    lines = shown(bars(rows())).splitlines()
    assert [line.count("█") for line in lines if "█" in line] == [40, 31, 6, 40, 20, 10]


def test_the_figure_is_a_png(tmp_path):
    save_figure(rows(), tmp_path / "x.png", "title")
    assert (tmp_path / "x.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


@pytest.mark.parametrize(
    "only_plain,only_compressed,sentences",
    [
        (
            50,
            60,
            ["loses nothing to the plain one and takes 6.3 times", "standard error of 1.0 points on these 1,000 rows"],
        ),
        (64, 55, ["loses 0.9 points to the plain one and"]),
        (
            63,
            50,
            ["loses 1.3 points to the plain one, more than the 1 point allowed but no more than chance makes, and"],
        ),
        (90, 40, ["loses 5.0 points to the plain one, MORE than the 1 point allowed and than chance makes, and"]),
    ],
)
def test_the_verdict_says_what_is_lost_and_how_sure_that_is(only_plain, only_compressed, sentences):
    said = verdict(rows(), PairedAnswers(1000, only_plain, only_compressed))
    for sentence in sentences:
        assert sentence in said
