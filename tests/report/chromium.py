"""Show a page in headless Chromium."""

import json
from pathlib import Path

from selenium import webdriver


def open_page(browser: webdriver.Chrome, path: Path, text: str, width: int = 1200) -> list[str]:
    """Show a page; the addresses that were asked for."""
    path.write_text(text, encoding="utf-8")
    metrics = {"width": width, "height": 850, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.get_log("performance")
    browser.get(path.as_uri())
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    return [
        event["params"]["request"]["url"]
        for event in events
        if event["method"] == "Network.requestWillBeSent"
    ]
