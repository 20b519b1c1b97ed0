"""The page of an OOD evaluation, read as HTML and in a browser."""

import re
from dataclasses import replace

import numpy as np
import pytest
from helpers.chromium import open_page
from helpers.pages import Page
from selenium.webdriver.common.by import By

import negvision
from negvision.ood.records import REFERENCE_PREVALENCE, evaluate_records, per_image_values
from negvision.report.ood_page import ood_page

DASH = "\N{EN DASH}"
LONG = "a_name_without_any_space_" * 8


def test_metrics_notes_and_groups_are_those_of_the_evaluation(records):
    page = Page(ood_page(records, "A title", "run/ood_scores.npz", resamples=40))
    evaluation = evaluate_records(records, 40)
    for name, metrics in evaluation.by_score.items():
        expected = [*metrics.as_dict().values(), metrics.ap_at(REFERENCE_PREVALENCE)]
        cells = page.row(name)[1:]
        assert [cell.split()[0] for cell in cells] == [f"{value:.4f}" for value in expected]
        for cell, (low, high) in zip(cells, metrics.intervals.values(), strict=False):
            shown = [float(end) for end in cell.split()[1].split(DASH)]
            assert shown == pytest.approx([low, high], abs=5.1e-3)
        assert len(metrics.intervals) == 5
    first = evaluation.by_score["abet"]
    chance = [0.5, first.prevalence, 1 - first.prevalence, 0.95, 0.95, 0.1]
    assert page.row("chance level")[1:] == [f"{value:.4f}" for value in chance]
    threshold = {
        "boxes": "the model's threshold, 1.5",
        "pixels": "the threshold with the best F1 of pixels, 1.2",
    }
    assert (records.task in threshold) == ("higher scores are called unknown" in page.text)
    for text in (
        *("A title", "run/ood_scores.npz", f"negvision {negvision.__version__}"),
        *(f"{first.num_ood:,.0f}", f"{first.num_id:,.0f}", *records.notes),
        "OOD is the positive class, and a higher score is more OOD",
        threshold.get(records.task, ""),
    ):
        assert text in page.text
    for parts in evaluation.strata.values():
        for part in parts:
            counts = [f"{part.num_ood:,.0f}", f"{part.num_id:,.0f}"]
            assert page.row(part.name)[:4] == [part.name, *counts, f"{part.metrics.auroc:.4f}"]
        aurocs = [part.metrics.auroc for part in parts]
        assert page.row("gap")[3] == f"{max(aurocs) - min(aurocs):.4f}"


def test_group_without_ood_has_dashes_and_no_gap(make_records):
    records = make_records("images")
    strata = {"kind": (["known", "both"], (records.is_ood | (np.arange(30) % 2)).astype(int))}
    page = Page(ood_page(replace(records, strata=strata), "t", resamples=2))
    assert page.row("known")[1] == "0"
    assert set(page.row("known")[3:8]) == set(page.row("gap")[3:8]) == {DASH}


def test_pixels_are_shown_image_by_image(make_records):
    records = make_records("pixels")
    page = Page(ood_page(records, "t", resamples=2))
    aurocs = {index: one.auroc for index, one in per_image_values(records).items()}
    for name, function in (("lowest", min), ("median", np.median), ("highest", max)):
        assert page.row(name)[1] == f"{function(list(aurocs.values())):.4f}"
    worst = min(aurocs, key=aurocs.get)
    assert page.row(records.paths[worst])[1] == f"{aurocs[worst]:.4f}"
    assert "1,800 pixels are in the file" in page.text
    page = Page(ood_page(make_records("pixels", num_images=1), "t", resamples=2))
    assert "Fewer than two images have OOD and ID pixels" in page.text


def test_one_score_without_notes_and_groups(make_records):
    records = make_records("images", num_images=3)
    records = replace(records, scores={"abet": np.zeros(3)}, labels=None, notes={})
    page = Page(ood_page(records, "t"))
    assert page.row("abet")[1] == "0.5000"
    assert "There are no intervals" in page.text
    assert "None: no OOD image scores lower than an ID image" in page.text
    assert "Notes of the evaluation" not in page.text and "By group" not in page.text


def test_names_are_escaped(make_records):
    records = make_records("boxes", num_images=10)
    evil = "<script>alert('x')</script>\"><img src=x onerror=y>"
    records = replace(
        records,
        scores=dict(zip([evil, "b"], records.scores.values(), strict=False)),
        classes=[evil] * 3,
        paths=[evil, *records.paths[1:]],
        notes={evil: evil},
        strata={evil: ([evil] * 3, records.strata["box size"][1])},
    )
    text = ood_page(records, evil, evil, resamples=2)
    page = Page(text)
    assert "<script" not in text and "onerror=y>" not in text
    assert evil in page.text
    assert all(source.startswith("data:image/jpeg;base64,") for source in page.attributes("src"))


def test_page_is_self_contained(records):
    page = Page(ood_page(records, "t", resamples=2))
    links = page.attributes("src", "href", "xlink:href")
    assert {link.partition(":")[0] if link[0] != "#" else "#" for link in links} == {"data", "#"}
    [policy] = [attrs["content"] for _, attrs in page.elements if "http-equiv" in attrs]
    assert policy.startswith("default-src 'none'") and "script" not in policy
    assert {link[1:] for link in links if link[0] == "#"} <= set(page.attributes("id"))
    assert all("alt" in attrs for tag, attrs in page.elements if tag == "img")


def test_plots_and_images_are_shown_and_scripts_blocked(browser, records, tmp_path):
    text = ood_page(records, "Cards", resamples=2)
    requests = open_page(browser, tmp_path / "page.html", text)
    own = (tmp_path / "page.html").as_uri()
    assert [url for url in requests if not url.startswith("data:")] == [own]
    assert browser.find_element(By.ID, "metrics-table").is_displayed()
    plots = browser.find_elements(By.CSS_SELECTOR, ".plot svg")
    assert len(plots) == 4
    for svg in plots:
        assert svg.size["width"] > 200 and svg.size["height"] > 150
        assert svg.find_elements(By.TAG_NAME, "path")
    images = browser.find_elements(By.TAG_NAME, "img")
    assert len(images) > 5
    for image in images:
        assert int(image.get_property("naturalWidth")) > 0 and image.size["width"] > 100
    assert browser.get_log("browser") == []
    text = text.replace("</body>", "<script>document.title='run'</script></body>")
    open_page(browser, tmp_path / "page.html", text)
    assert browser.title == "Cards"
    assert re.search("Content Security Policy", str(browser.get_log("browser")))


def test_phone_needs_no_sideways_scrolling_and_missing_images_are_explained(
    browser, records, tmp_path
):
    records = replace(
        records,
        classes=[LONG] * 3,
        strata={LONG: ([LONG] * 3, records.image % 3)},
        notes={LONG: LONG, **records.notes},
        paths=[f"{LONG}.png"] * len(records.paths),
    )
    open_page(browser, tmp_path / "page.html", ood_page(records, LONG, LONG, 2), width=390)
    assert browser.execute_script("return window.innerWidth") == 390
    assert browser.execute_script("return document.documentElement.scrollWidth") == 390
    # Wide tables scroll inside their own box.
    box = browser.find_element(By.CSS_SELECTOR, ".scroll")
    assert box.size["width"] < 390 < browser.find_element(By.ID, "metrics-table").size["width"]
    absent = browser.find_elements(By.CLASS_NAME, "absent")
    for place in absent:
        assert place.size["height"] > 60 and "No such file or directory" in place.text
    body = browser.find_element(By.TAG_NAME, "body").text
    assert absent and "image files could not be read" in body
