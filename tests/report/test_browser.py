"""An OOD page in a browser."""

from dataclasses import replace

from helpers.chromium import open_page
from selenium.webdriver.common.by import By

from negvision.ood.records import evaluate_records
from negvision.report.ood_page import ood_page


def test_metrics_plots_and_images_are_shown(browser, records, tmp_path):
    text = ood_page(records, "Cards", resamples=20)
    requests = open_page(browser, tmp_path / "page.html", text)
    assert [url for url in requests if not url.startswith("data:")] == [
        (tmp_path / "page.html").as_uri()
    ]
    assert browser.title == "Cards"
    table = browser.find_element(By.ID, "metrics-table")
    assert table.is_displayed()
    for metrics in evaluate_records(records, 20).by_score.values():
        for value in (*metrics.as_dict().values(), metrics.ap_at(0.1)):
            assert f"{value:.4f}" in table.text
    plots = browser.find_elements(By.CSS_SELECTOR, ".plot svg")
    assert len(plots) == 4
    for svg in plots:
        assert svg.size["width"] > 200 and svg.size["height"] > 150
        assert svg.find_elements(By.TAG_NAME, "path")
    images = browser.find_elements(By.TAG_NAME, "img")
    assert len(images) > 6
    for image in images:
        assert int(image.get_property("naturalWidth")) > 0
        assert image.size["width"] > 100
    assert browser.get_log("browser") == []


def test_phone_needs_no_sideways_scrolling(browser, records, tmp_path):
    long = "a_name_without_any_space_" * 8
    records = replace(
        records,
        classes=[long] * 3,
        strata={long: ([long] * 3, records.image % 3)},
        notes={long: long, **records.notes},
        paths=[f"{long}.png", *records.paths[1:]],
    )
    text = ood_page(records, long, long, resamples=2)
    open_page(browser, tmp_path / "page.html", text, width=390)
    assert browser.execute_script("return window.innerWidth") == 390
    assert browser.execute_script("return document.documentElement.scrollWidth") == 390
    # Wide tables scroll inside their own box.
    box = browser.find_element(By.CSS_SELECTOR, ".scroll")
    assert box.size["width"] < 390 < browser.find_element(By.ID, "metrics-table").size["width"]


def test_placeholder_explains_a_missing_image(browser, make_records, tmp_path):
    records = make_records("images")
    gone = replace(records, paths=["gone.png"] * len(records.paths))
    open_page(browser, tmp_path / "page.html", ood_page(gone, "t", resamples=2))
    assert not browser.find_elements(By.TAG_NAME, "img")
    for place in browser.find_elements(By.CLASS_NAME, "absent"):
        assert place.is_displayed() and "No such file or directory" in place.text
        assert place.size["height"] > 100
    notice = browser.find_element(By.CLASS_NAME, "notice").text
    assert "image files could not be read" in notice and "negvision ood-report" in notice


def test_policy_blocks_scripts(browser, make_records, tmp_path):
    text = ood_page(make_records("images"), "Title", resamples=2)
    text = text.replace("</body>", "<script>document.title='run'</script></body>")
    open_page(browser, tmp_path / "page.html", text)
    assert browser.title == "Title"
    assert any(
        "Content Security Policy" in entry["message"] for entry in browser.get_log("browser")
    )
