"""The page of a run in a browser."""

from helpers.chromium import open_page
from helpers.run_reports import make_report
from selenium.webdriver.common.by import By

from negvision.report.ood_page import ood_sections
from negvision.report.page_parts import Html, Section
from negvision.report.run_page import run_page


def test_tables_plots_and_images_are_shown_without_the_network(browser, make_records, tmp_path):
    part = Html(ood_sections(make_records("boxes", num_images=12), "ood-", resamples=2))
    report = make_report()
    report = make_report(sections=[*report.sections[:-1], Section("ood", "OOD", [part])])
    requests = open_page(browser, tmp_path / "page.html", run_page([report]))
    own = (tmp_path / "page.html").as_uri()
    assert [url for url in requests if not url.startswith("data:")] == [own]
    assert browser.title == "run"
    plots = browser.find_elements(By.CSS_SELECTOR, ".plot svg")
    # Loss, learning rate, and one metric; four of the test; four of the OOD section.
    assert len(plots) == 3 + 4 + 4
    for svg in plots:
        assert svg.size["width"] > 150 and svg.size["height"] > 100
        assert svg.find_elements(By.TAG_NAME, "path")
    for image in browser.find_elements(By.TAG_NAME, "img"):
        assert int(image.get_property("naturalWidth")) > 0 and image.size["width"] > 100
    assert browser.find_element(By.ID, "ood-metrics-table").is_displayed()
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


def test_comparison_on_a_phone_needs_no_sideways_scrolling(browser, tmp_path):
    long = "a_name_without_any_space_" * 6
    reports = [make_report(long), make_report("b", 0.6), make_report("c", 0.4)]
    for number, text in enumerate((run_page(reports), run_page(reports[:1]))):
        open_page(browser, tmp_path / f"{number}.html", text, width=390)
        assert browser.execute_script("return document.documentElement.scrollWidth") == 390
    open_page(browser, tmp_path / "wide.html", run_page(reports))
    best = browser.find_elements(By.CSS_SELECTOR, "td.best")
    assert best and all(cell.is_displayed() and "★" in cell.text for cell in best)
    assert browser.get_log("browser") == []
