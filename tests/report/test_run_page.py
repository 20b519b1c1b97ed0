"""The pages of one run and of several, read as HTML."""

import re

import pytest
from helpers.pages import Page
from helpers.run_reports import make_log, make_report

from negvision.report.page_parts import ConfigChange, Matrix, MetricRow, MetricTable, Section
from negvision.report.run_page import compared_tables, curve_parts, run_page


def test_page_has_all_parts():
    page = Page(run_page([make_report()]))
    assert page.row("mAP") == ["mAP", "0.500", "AP of all"]
    assert page.row("mAP_l")[1] == "\N{EN DASH}"
    assert page.row("cat")[1:] == ["0.600", "1,234"]
    # Percent of the row, and the number.
    matrix = [row for row in page.rows if row[0] in ("cat", "dog", "background") and len(row) == 4]
    assert matrix == [
        ["cat", "80 990", "1 10", "19 234"],
        ["dog", "", "70 7", "30 3"],
        ["background", "67 2", "33 1", ""],
    ]
    for text in (
        "run/iter_30.pth",
        "abc123",
        "-lr = 0.1",
        "+lr = 0.2",
        "Nothing differs.",
        "model.type = 'ATSS'",
        "loss 3.200",
        "No such file",
        "There is no OOD metric.",
        "How it was counted.",
    ):
        assert text in page.text
    links = {value for value in page.attributes("href") if value.startswith("#")}
    assert links <= {f"#{anchor}" for anchor in page.attributes("id")}
    assert "Hidden" not in page.text
    assert not [tag for tag, _ in page.elements if tag in ("script", "link", "iframe")][1:]


def test_curves_show_losses_learning_rate_and_main_metrics():
    training, evaluations = curve_parts([make_log("a")])
    assert [plot.title for plot in training.plots] == ["loss", "lr"]
    assert [plot.title for plot in evaluations.plots] == ["coco/bbox_mAP"]
    assert "a: 3 to 1" in training.plots[0].alt
    both, _ = curve_parts([make_log("a"), make_log("b")])
    assert list(both.legend) == ["a", "b"]
    log = make_log("a", 0.4, evaluations=1)
    del log.evaluations["coco/bbox_mAP/cat"]
    _, table = curve_parts([log])
    assert [(row.name, list(row.values)) for row in table.rows] == [("coco/bbox_mAP", [0.4])]
    text = run_page([make_report(log=None, log_problem="no scalars.json below here")])
    assert "no scalars.json below here" in Page(text).text


def test_comparison_shows_differences_and_marks_the_best():
    reports = [make_report("a", 0.5), make_report("b", 0.6), make_report("c", 0.45)]
    change = ConfigChange("b against a", ["--- a", "+++ b", "-lr = 0.1", "+lr = 0.2"])
    page = Page(run_page(reports, [change]))
    minus = "\N{MINUS SIGN}"
    assert page.row("mAP") == ["mAP", "0.500", "0.600 ★ +0.100", f"0.450 {minus}0.050"]
    # Equal values: none is best.
    assert page.row("eer") == ["eer", "0.250", *["0.250 \N{PLUS-MINUS SIGN}0.000"] * 2]
    assert page.row("mAP_l")[1:] == ["\N{EN DASH}"] * 3
    assert page.row("dog")[2] == "0.500 ★ +0.100"
    assert page.row("checkpoint")[1:] == [f"{name}/iter_30.pth" for name in "abc"]
    assert "b against a" in page.text and "+lr = 0.2" in page.text
    assert "Hidden" in page.text
    assert "b, Out of distribution: There is no OOD metric." in page.text


@pytest.mark.parametrize(
    ("better", "values", "best"),
    [
        ("higher", [1, 3, 3], [False, True, True]),
        ("lower", [1.0, 3.0, 2.0], [True, False, False]),
        ("", [1, 2, 3], [False] * 3),
        ("higher", [None, 0.5, float("nan")], [False] * 3),
        ("higher", [0.0, 0.0, -1.0], [True, True, False]),
    ],
)
def test_best_of_a_row(better, values, best):
    reports = []
    for number, value in enumerate(values):
        table = MetricTable("t", "f", ["v"], [MetricRow("x", [value], better=better)])
        section = Section("s", "S", [table])
        reports.append(make_report(str(number), sections=[section]))
    [table] = compared_tables(reports)
    assert [cell.best for cell in next(iter(table.rows.values()))[1]] == best
    assert next(iter(table.rows.values()))[1][0].change is None


def test_rows_of_different_classes_are_matched_by_name():
    def of(name, rows):
        table = MetricTable("t", "class", ["AP"], [MetricRow(*row) for row in rows])
        return make_report(name, sections=[Section("s", "S", [table])])

    none = make_report("c", sections=[])
    reports = [of("a", [("cat", [0.1])]), of("b", [("dog", [0.3]), ("cat", [0.4])]), none]
    [table] = compared_tables(reports)
    assert list(table.rows) == ["cat", "dog"]
    assert [cell.value for cell in table.rows["dog"][1]] == [None, 0.3, None]
    assert table.rows["dog"][1][1].change is None
    assert table.rows["cat"][1][1].change == pytest.approx(0.3)


def test_many_classes_give_a_list_of_errors():
    names = [f"class {number}" for number in range(30)]
    counts = [[0] * 30 for _ in names]
    counts[3][7], counts[3][3], counts[8][1] = 5, 15, 6
    matrix = Matrix("Boxes", names, names, counts, "Counted.", "boxes")
    page = Page(run_page([make_report(sections=[Section("c", "C", [matrix])])]))
    assert page.rows[-2:] == [
        ["class 8", "class 1", "6", "1.000"],
        ["class 3", "class 7", "5", "0.250"],
    ]


def test_names_are_escaped():
    evil = "<script>alert(1)</script>"
    report = make_report(evil, facts={evil: evil}, config=[evil])
    for text in (run_page([report]), run_page([report, make_report("b", facts={})])):
        assert not re.search(r"<script", text)
        assert "&lt;script&gt;" in text
