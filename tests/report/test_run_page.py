"""The pages of one run and of several, read as HTML and in a browser."""

from dataclasses import replace

import numpy as np
import pytest
from helpers.chromium import open_page
from helpers.pages import Page
from selenium.webdriver.common.by import By

from negvision.report.image_samples import embedded
from negvision.report.ood_page import ood_sections
from negvision.report.page_parts import (
    ConfigChange,
    Gallery,
    Html,
    ImageSample,
    Matrix,
    MetricRow,
    MetricTable,
    Plots,
    RunReport,
    Section,
)
from negvision.report.plots import count_bars, precision_plot, roc_of_pairs
from negvision.report.run_page import compared_tables, curve_parts, run_page
from negvision.report.train_log import TrainLog


def make_log(name: str, last: float = 0.5, evaluations: int = 2) -> TrainLog:
    steps, points = [10, 20, 30], [10, 30][-evaluations:]
    train = {"loss": (steps, [3.0, 2.0, 1.0]), "lr": (steps, [0.1, 0.1, 0.01])}
    train["grad"] = (steps, [1.0] * 3)
    scores = {"coco/bbox_mAP": (points, [0.1, last][-evaluations:])}
    return TrainLog(name, [], train, scores | {"coco/bbox_mAP/cat": (points, points)})


def make_report(name: str = "run", ap: float = 0.5, **changes) -> RunReport:
    """A run with every kind of part."""
    recall = np.linspace(0, 1, 101)
    rows = [
        MetricRow("mAP", [ap], "AP of all"),
        MetricRow("mAP_l", [float("nan")], "AP of large objects"),
        MetricRow("eer", [0.25], "error", better="lower"),
    ]
    classes = [MetricRow("cat", [ap + 0.1, 1234]), MetricRow("dog", [ap - 0.1, 10])]
    counts = [[990, 10, 234], [0, 7, 3], [2, 1, 0]]
    plots = [
        precision_plot("all", {"IoU 0.5": 1 - recall, "mean IoU": 0.5 - recall / 2}, recall),
        roc_of_pairs(recall, recall**0.2, 500, "ROC"),
        count_bars(np.array([0, 3, 3, 40]), "positives", "boxes", "Positives"),
    ]
    image = embedded(np.full((200, 320, 3), 90, np.uint8), "an image")
    samples = [
        ImageSample("a.jpg", ["2 objects, 1 found"], [image], tag="loss 3.200"),
        ImageSample("b.jpg", [], [], "No such file", "loss 3.100"),
    ]
    matrix = Matrix(
        "Boxes", ["cat", "dog", "background"], ["cat", "dog", "missed"], counts, "Counted.", "boxes"
    )
    metrics = [
        MetricTable("COCO metrics", "metric", ["value"], rows),
        MetricTable("AP by class", "class", ["AP", "objects"], classes),
        MetricTable("Hidden", "metric", ["value"], rows[:1], hidden=True),
    ]
    report = {
        "name": name,
        "facts": {"checkpoint": f"{name}/iter_30.pth", "commit of negvision": "abc123"},
        "changes": [
            ConfigChange("Against its base", ["--- base", "+++ own", "-lr = 0.1", "+lr = 0.2"]),
            ConfigChange("Options"),
        ],
        "config": ["lr = 0.2", "model.type = 'ATSS'"],
        "log": make_log(name, ap),
        "log_problem": "",
        "sections": [
            Section("metrics", "Average precision", metrics),
            Section("test-curves", "Curves of the test", [Plots("Plots", plots, {}, "Three.")]),
            Section("confusion", "Confused classes", [matrix]),
            Section("worst", "Worst images", [Gallery("Images", samples, "The worst.")]),
            Section("ood", "Out of distribution", missing="There is no OOD metric."),
        ],
    }
    return RunReport(**report | changes)


@pytest.fixture(scope="module")
def report() -> RunReport:
    return make_report()


def test_page_has_all_parts(report):
    page = Page(run_page([report]))
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
        "Counted.",
    ):
        assert text in page.text
    links = {value for value in page.attributes("href") if value.startswith("#")}
    assert links <= {f"#{anchor}" for anchor in page.attributes("id")}
    assert "Hidden" not in page.text


def test_curves_show_losses_learning_rate_and_main_metrics(report):
    training, evaluations = curve_parts([make_log("a")])
    assert [plot.title for plot in training.plots] == ["loss", "lr"]
    assert [plot.title for plot in evaluations.plots] == ["coco/bbox_mAP"]
    assert "a: 3 to 1" in training.plots[0].alt
    both, _ = curve_parts([make_log("a"), make_log("b")])
    assert list(both.legend) == ["a", "b"]
    _, table = curve_parts([make_log("a", 0.4, evaluations=1)])
    assert [(row.name, list(row.values)) for row in table.rows] == [("coco/bbox_mAP", [0.4])]
    text = run_page([replace(report, log=None, log_problem="no scalars.json below here")])
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
def test_best_of_a_row(report, better, values, best):
    [cells] = [
        cells for _, cells in compared(report, *({"x": one} for one in values), better=better)
    ]
    assert [cell.best for cell in cells] == best
    assert cells[0].change is None


def compared(report, *runs, better="higher"):
    """Rows of the table that compares runs by their values."""
    reports = []
    for values in runs:
        rows = [MetricRow(name, [value], better=better) for name, value in values.items()]
        tables = [MetricTable("t", "class", ["AP"], rows)] * bool(rows)
        reports.append(replace(report, sections=[Section("s", "S", tables)]))
    [table] = compared_tables(reports)
    return table.rows.values()


def test_rows_of_different_classes_are_matched_by_name(report):
    (_, cat), (_, dog) = compared(report, {"cat": 0.1}, {"dog": 0.3, "cat": 0.4}, {})
    assert [cell.value for cell in dog] == [None, 0.3, None]
    assert dog[1].change is None
    assert cat[1].change == pytest.approx(0.3)


def test_many_classes_give_a_list_of_errors(report):
    names = [f"class {number}" for number in range(30)]
    counts = [[0] * 30 for _ in names]
    counts[3][7], counts[3][3], counts[8][1] = 5, 15, 6
    matrix = Matrix("Boxes", names, names, counts, "Counted.", "boxes")
    page = Page(run_page([replace(report, sections=[Section("c", "C", [matrix])])]))
    assert page.rows[-2:] == [
        ["class 8", "class 1", "6", "1.000"],
        ["class 3", "class 7", "5", "0.250"],
    ]


def test_names_are_escaped(report):
    evil = "<script>alert(1)</script>"
    renamed = replace(report, name=evil, facts={evil: evil}, config=[evil])
    for text in (run_page([renamed]), run_page([renamed, report])):
        assert "<script" not in text and "&lt;script&gt;" in text


def test_tables_plots_and_images_are_shown_without_the_network(
    browser, report, make_records, tmp_path
):
    part = Html(ood_sections(make_records("boxes", num_images=12), "ood-", resamples=2))
    report = replace(report, sections=[*report.sections[:-1], Section("ood", "OOD", [part])])
    requests = open_page(browser, tmp_path / "page.html", run_page([report]))
    own = (tmp_path / "page.html").as_uri()
    assert [url for url in requests if not url.startswith("data:")] == [own]
    plots = browser.find_elements(By.CSS_SELECTOR, ".plot svg")
    # Loss, learning rate, and one metric; three of the test; four of the OOD section.
    assert len(plots) == 3 + 3 + 4
    for svg in plots:
        assert svg.size["width"] > 150 and svg.size["height"] > 100
    ids = browser.execute_script(
        "return [...document.querySelectorAll('main [id]:not(svg [id])')].map(e => e.id)"
    )
    assert len(ids) == len(set(ids))
    cells = browser.find_elements(By.CSS_SELECTOR, ".matrix tbody td")[:3]
    # 80, 1, and 19 percent of the cats.
    assert len({cell.value_of_css_property("background-color") for cell in cells}) == 3
    config = browser.find_element(By.CSS_SELECTOR, "details pre")
    assert not config.is_displayed()
    browser.find_element(By.TAG_NAME, "summary").click()
    assert config.is_displayed() and "model.type = 'ATSS'" in config.text
    assert browser.get_log("browser") == []


def test_phone_needs_no_sideways_scrolling(browser, report, tmp_path):
    reports = [replace(report, name="a_name_without_any_space_" * 6), replace(report, name="b")]
    for number, text in enumerate((run_page(reports), run_page(reports[:1]))):
        open_page(browser, tmp_path / f"{number}.html", text, width=390)
        assert browser.execute_script("return document.documentElement.scrollWidth") == 390
