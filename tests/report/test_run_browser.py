"""The page of a run as a browser shows it."""

from helpers.chromium import open_page
from helpers.run_reports import make_report
from selenium.webdriver.common.by import By

from negvision.report.ood_page import ood_sections
from negvision.report.page_parts import Html, Section
from negvision.report.run_page import run_page


def test_tables_plots_and_pictures_are_shown_without_the_network(browser, make_records, tmp_path):
    part = Html(ood_sections(make_records("boxes", num_images=12), "ood-", resamples=2))
    report = make_report()
    report = make_report(sections=[*report.sections[:-1], Section("ood", "OOD", [part])])
    requests = open_page(browser, tmp_path / "page.html", run_page([report]))
    own = (tmp_path / "page.html").as_uri()
    assert [url for url in requests if not url.startswith("data:")] == [own]
    assert browser.title == "run"
    plots = browser.find_elements(By.CSS_SELECTOR, ".plot svg")
    # Losses, rate, one metric; four of the test; four of the OOD report.
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
    assert browser.get_log("browser") == []


def test_shares_of_a_matrix_are_its_colours(browser, tmp_path):
    open_page(browser, tmp_path / "page.html", run_page([make_report()]))
    cells = browser.find_elements(By.CSS_SELECTOR, ".matrix tbody td")
    colors = [cell.value_of_css_property("background-color") for cell in cells]
    # 80, 1 and 19 percent of the cats.
    assert len(set(colors[:3])) == 3
    assert cells[0].value_of_css_property("color") != cells[1].value_of_css_property("color")


def test_whole_config_opens_without_a_script(browser, tmp_path):
    open_page(browser, tmp_path / "page.html", run_page([make_report()]))
    whole = browser.find_element(By.CSS_SELECTOR, "details pre")
    assert not whole.is_displayed()
    browser.find_element(By.TAG_NAME, "summary").click()
    assert whole.is_displayed() and "model.type = 'ATSS'" in whole.text


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
