"""The page in a browser: how it is used, and which hosts it contacts."""

import contextlib
import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from helpers.chromium import start_chromium
from selenium import webdriver
from selenium.common.exceptions import TimeoutException
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

# Seconds, for busy machines.
PATIENCE = 60


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    driver = start_chromium(tmp_path_factory.mktemp("chromium"), "--window-size=1200,1000")
    driver.get("about:blank")
    driver.get_log("performance")
    driver.get_log("browser")
    yield driver
    driver.quit()


@pytest.fixture
def page(browser, detector) -> webdriver.Chrome:
    return open_page(browser, detector.url)


def open_page(browser: webdriver.Chrome, url: str) -> webdriver.Chrome:
    browser.get(url)
    wait(browser, lambda: browser.find_elements(By.CSS_SELECTOR, "#upload input[type=file]"))
    return browser


def wait(browser: webdriver.Chrome, ready: Callable) -> Any:
    return WebDriverWait(browser, PATIENCE, poll_frequency=0.05).until(lambda _: ready())


def find(browser: webdriver.Chrome, css: str) -> WebElement:
    """The element, as soon as it is there: parts of a page appear one after the other."""
    return wait(browser, lambda: browser.find_elements(By.CSS_SELECTOR, css))[0]


def drop(browser: webdriver.Chrome, path: Path, where: str = "upload") -> None:
    find(browser, f"#{where} input[type=file]").send_keys(str(path))


def remove(browser: webdriver.Chrome, where: str = "upload") -> None:
    find(browser, f"#{where} [aria-label='Remove Image']").click()
    wait_for_note(browser, "Drop ")


def note(browser: webdriver.Chrome) -> str:
    return find(browser, "#note").text


def wait_for_note(browser: webdriver.Chrome, part: str) -> None:
    try:
        wait(browser, lambda: part in note(browser))
    except TimeoutException:
        raise AssertionError(f"the page shows {note(browser)!r}, not {part!r}") from None


def set_slider(browser: webdriver.Chrome, name: str, value: str, shown: str) -> None:
    """Type a value next to a slider until the note contains ``shown``.

    The response to a dropped image moves sliders too, a moment after the note.
    """
    number = find(browser, f"#{name} input[type=number]")
    end = time.monotonic() + PATIENCE
    while shown not in note(browser):
        assert time.monotonic() < end, f"the page shows {note(browser)!r}, not {shown!r}"
        number.send_keys(Keys.CONTROL, "a")
        number.send_keys(value, Keys.TAB)
        with contextlib.suppress(TimeoutException):
            WebDriverWait(browser, 3, poll_frequency=0.05).until(lambda _: shown in note(browser))


def examples(browser: webdriver.Chrome) -> list[WebElement]:
    return browser.find_elements(By.CSS_SELECTOR, "#examples button")


def drawing(browser: webdriver.Chrome) -> np.ndarray:
    """The result as the browser holds it, (H, W, 3) uint8, blue first."""
    image = find(browser, "#picture img")
    wait(browser, lambda: int(image.get_property("naturalWidth")) > 0)
    script = """
        const [url, done] = arguments;
        fetch(url).then(answer => answer.arrayBuffer())
            .then(data => done(Array.from(new Uint8Array(data))));
    """
    data = browser.execute_async_script(script, image.get_attribute("src"))
    return cv2.imdecode(np.array(data, np.uint8), cv2.IMREAD_COLOR)


def table(browser: webdriver.Chrome) -> list[list[str]]:
    script = """
        return Array.from(document.querySelectorAll('#table [role=row]')).map(
            row => Array.from(row.querySelectorAll('[role=gridcell]')).map(
                cell => cell.innerText.trim()))
    """
    return [row for row in browser.execute_script(script) if any(row)]


def headers(browser: webdriver.Chrome) -> list[str]:
    script = """
        return Array.from(document.querySelectorAll('#table [role=columnheader]')).map(
            cell => cell.innerText.trim())
    """
    return browser.execute_script(script)


@pytest.fixture(scope="module")
def gray(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("images") / "gray.png"
    cv2.imwrite(str(path), np.full((120, 160, 3), 90, np.uint8))
    return path


def test_dropped_image_is_shown_with_its_boxes(page, gray):
    wait_for_note(page, "Drop an image on the left.")
    find(page, "#table [role=columnheader]")
    assert headers(page) == ["class", "score", "OOD score", "unknown", "x1", "y1", "x2", "y2"]
    assert find(page, "#classes").text == "Classes: <b>cat</b>, dog, bird"
    drop(page, gray)
    wait_for_note(page, "160 x 120 pixels; 3 of 5 boxes, 0 of them unknown.")
    seen = drawing(page)
    # Enlarged four times; the first box begins at (8, 8), and the rest is gray.
    assert seen.shape == (480, 640, 3)
    assert (seen[100, 30:36] != 90).any() and (seen[100, 270] == 90).all()
    wait(page, lambda: len(table(page)) == 3)
    rows = table(page)
    assert [row[:4] for row in rows] == [
        ["<b>cat</b>", "0.95", "-9", ""],
        ["dog", "0.8", "-3", ""],
        ["dog", "0.55", "-8", ""],
    ]
    assert rows[0][4:] == ["8", "8", "60", "60"]
    remove(page)
    wait(page, lambda: not table(page))
    assert len(headers(page)) == 8


def test_example_is_shown_when_it_is_clicked(browser, servers):
    page = open_page(browser, servers["proxied"].url)
    wait_for_note(page, "Drop an image on the left, or click one below.")
    first, second, *_ = wait(page, lambda: examples(page)[1:] and examples(page))
    first.click()
    wait_for_note(page, "2 of 5 boxes, 0 of them unknown")
    before = note(page)
    second.click()
    wait(page, lambda: note(page) != before and "2 of 5 boxes" in note(page))


def test_sliders_change_boxes_and_unknowns(page, gray, detector):
    drop(page, gray)
    wait_for_note(page, "3 of 5 boxes")
    before = drawing(page)
    set_slider(page, "score", "0.05", "5 of 5 boxes, 2 of them unknown")
    assert not np.array_equal(drawing(page), before)
    wait(page, lambda: [row[3] for row in table(page)] == ["", "", "", "yes", "yes"])
    set_slider(page, "ood", "-8.5", "4 of them unknown")
    set_slider(page, "score", "0.99", "0 of 5 boxes (the highest score is 0.95)")
    wait(page, lambda: table(page) == [])
    # Dragging the slider has the same effect.
    slider = find(page, "#score input[type=range]")
    slider.send_keys(Keys.HOME)
    wait_for_note(page, "5 of 5 boxes")


def test_ood_slider_keeps_its_value_for_the_next_image(page, gray):
    drop(page, gray)
    wait_for_note(page, "3 of 5 boxes, 0 of them unknown")
    set_slider(page, "ood", "-8.5", "2 of them unknown")
    remove(page)
    drop(page, gray)
    wait_for_note(page, "2 of them unknown")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("words.png", b"this is no image", "words.png: not an image of a known format"),
        ("empty.png", b"", "empty.png: the file is empty"),
        ("torn.png", None, "torn.png: truncated PNG"),
        ("wide.png", (400, 300), "wide.png: 400 x 300 pixels; this page accepts at most 100,000"),
        ("[x](http~~a.b).png", b"no", "[x](http~~a.b).png: not an image"),
    ],
)
def test_invalid_file_is_reported_on_the_page(page, gray, tmp_path, name, content, message):
    if content is None:
        content = gray.read_bytes()[:-30]
    elif isinstance(content, tuple):
        content = cv2.imencode(".png", np.zeros((content[1], content[0], 3), np.uint8))[1].tobytes()
    drop(page, gray)
    wait_for_note(page, "3 of 5 boxes")
    path = tmp_path / name
    path.write_bytes(content)
    remove(page)
    drop(page, path)
    wait_for_note(page, message)
    assert "bad" in find(page, "#note").get_attribute("class").split()
    # The previous result is gone.
    assert not page.find_elements(By.CSS_SELECTOR, "#picture img")
    remove(page)
    drop(page, gray)
    wait_for_note(page, "3 of 5 boxes")
    assert "bad" not in find(page, "#note").get_attribute("class").split()


def test_large_file_is_reported_and_not_kept(page, tmp_path):
    path = tmp_path / "large.png"
    path.write_bytes(np.random.default_rng(0).bytes(300_000))
    drop(page, path)
    wait(page, lambda: page.find_elements(By.CLASS_NAME, "toast-body"))
    shown = page.find_element(By.CLASS_NAME, "toast-body").get_property("innerText")
    assert "large.png" in shown and "exceed the maximum allowed size of 256.0 K" in shown, shown
    assert note(page) == "Drop an image on the left."


def test_page_and_server_contact_no_other_host(page, gray, detector):
    page.get_log("performance")
    page.get_log("browser")
    open_page(page, detector.url)
    drop(page, gray)
    wait_for_note(page, "3 of 5 boxes")
    set_slider(page, "score", "0.9", "1 of 5 boxes")
    time.sleep(0.5)
    events = [json.loads(entry["message"])["message"] for entry in page.get_log("performance")]
    asked = [
        event["params"]["request"]["url"]
        for event in events
        if event["method"] == "Network.requestWillBeSent"
    ]
    assert len(asked) > 20  # scripts, styles, fonts, the image
    local = (detector.url, "data:", "blob:")
    assert [url for url in asked if not url.startswith(local)] == []
    # The policy did not have to forbid anything either.
    shown = [entry["message"] for entry in page.get_log("browser")]
    assert [text for text in shown if "Method not implemented" not in text] == []
    # Nor did the server.
    for line in detector.asked.read_text().splitlines():
        assert re.search(r"127\.0\.0\.1|::1|localhost|None|/dev/|/var/run/nscd", line), line


def test_segmentor_shows_classes_and_a_heat_map(browser, servers, tmp_path):
    page = open_page(browser, servers["segmentor"].url)
    image = np.zeros((100, 200, 3), np.uint8)
    image[:, 150:, 2] = 255  # red: class 1
    image[:, :50, 1] = 200  # green: the OOD score
    cv2.imwrite(str(tmp_path / "a.png"), image)
    drop(page, tmp_path / "a.png")
    wait_for_note(page, "200 x 100 pixels; 0.0 % unknown.")
    wait(page, lambda: table(page) == [["road", "75", "0"], ["sky", "25", "0"]])
    seen = drawing(page)
    assert seen.shape[1] > 2 * 640  # the image, and the heat map beside it
    assert not page.find_elements(By.CSS_SELECTOR, "#score input[type=range]")
    set_slider(page, "ood", "100", "25.0 % unknown")
    wait(page, lambda: table(page) == [["road", "75", "33.3"], ["sky", "25", "0"]])


def test_page_below_a_path_shows_percentiles_from_the_threshold_of_the_model(
    browser, servers, gray
):
    page = open_page(browser, servers["proxied"].url)
    start = find(page, "#score input[type=number]")
    wait(page, lambda: start.get_property("value") == "0.6")
    drop(page, gray)
    wait_for_note(page, "2 of 5 boxes, 0 of them unknown")
    assert headers(page)[2] == "OOD percentile"
    wait(page, lambda: [row[2:4] for row in table(page)] == [["0", ""], ["75", ""]])
    set_slider(page, "ood", "74.5", "1 of them unknown")
    wait(page, lambda: [row[3] for row in table(page)] == ["", "yes"])


def test_two_faces_are_compared(browser, servers, tmp_path):
    page = open_page(browser, servers["recognizer"].url)
    for name, color in (("a", (0, 0, 255)), ("b", (0, 255, 255))):
        cv2.imwrite(str(tmp_path / f"{name}.png"), np.full((112, 112, 3), color, np.uint8))
    cv2.imwrite(str(tmp_path / "wide.png"), np.zeros((112, 200, 3), np.uint8))
    drop(page, tmp_path / "a.png")
    drop(page, tmp_path / "b.png", "other")
    number = find(page, "#similarity input")
    # Of (1, 0, 0) and (1, 1, 0).
    wait(page, lambda: number.get_property("value") == "0.7071")
    remove(page, "other")
    assert note(page) == "Drop two aligned face crops."
    drop(page, tmp_path / "wide.png", "other")
    wait_for_note(page, "the image is 200 x 112 pixels (width x height); this model takes 112")
