"""Take the pictures of README and docs from what the commands really show, in headless Chromium.

    python docs/screenshots.py serve MODEL [CHECKPOINT] --image FILE [OPTIONS OF THE COMMAND]
    python docs/screenshots.py report PAGE.html  # one that negvision report wrote

Each subcommand writes one picture into docs/pictures/. Chromium and chromedriver are needed.
"""

import argparse
import base64
import io
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

ROOT = Path(__file__).parents[1]
PICTURES = ROOT / "docs" / "pictures"
WIDTH, HEIGHT = 1200, 900
_COLORS = 256
_ARGUMENTS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)


@contextmanager
def browser() -> Iterator[webdriver.Chrome]:
    """Headless Chromium with a window of ``WIDTH`` x ``HEIGHT``."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        sys.exit("chromium or chromedriver is not installed (Debian: apt install chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    with tempfile.TemporaryDirectory() as profile:
        for argument in (*_ARGUMENTS, f"--user-data-dir={profile}"):
            options.add_argument(argument)
        shown = webdriver.Chrome(options=options, service=Service(driver))
        metrics = {"width": WIDTH, "height": HEIGHT, "deviceScaleFactor": 1, "mobile": False}
        shown.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        try:
            yield shown
        finally:
            shown.quit()


def save(shown: webdriver.Chrome, name: str, height: int = HEIGHT, top: int = 0) -> None:
    """Write ``height`` pixels of the page from ``top`` on as ``docs/pictures/NAME.png``."""
    clip = {"x": 0, "y": top, "width": WIDTH, "height": height, "scale": 1}
    taken = shown.execute_cdp_cmd(
        "Page.captureScreenshot", {"clip": clip, "captureBeyondViewport": True}
    )
    picture = Image.open(io.BytesIO(base64.b64decode(taken["data"]))).convert("RGB")
    PICTURES.mkdir(exist_ok=True)
    path = PICTURES / f"{name}.png"
    # A palette is a third of the bytes; so chosen it keeps small signs of a colour of their own.
    picture.quantize(_COLORS, Image.Quantize.MAXCOVERAGE, kmeans=1, dither=Image.Dither.NONE).save(
        path, optimize=True
    )
    print(f"{path.relative_to(ROOT)}  {path.stat().st_size / 1000:.0f} kB")


def wait(shown: webdriver.Chrome, ready: Callable[[], object], seconds: float = 60) -> None:
    """Until ``ready`` gives something."""
    WebDriverWait(shown, seconds, poll_frequency=0.1).until(lambda _: ready())


def take_serve(args: argparse.Namespace) -> None:
    """The page of ``negvision serve`` with an image on it."""
    model = [args.model, *([args.checkpoint] if args.checkpoint else [])]
    command = [sys.executable, ROOT / "tools" / "serve.py", *model, *args.options, "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as served:
        try:
            url = next(
                (word for line in served.stdout for word in line.split() if "://" in word), 0
            )
            if not url:
                sys.exit("negvision serve did not start")
            with browser() as shown:
                shown.get(url)
                wait(shown, lambda: shown.find_elements(By.CSS_SELECTOR, "#upload input"))
                upload = shown.find_element(By.CSS_SELECTOR, "#upload input[type=file]")
                upload.send_keys(str(Path(args.image).resolve()))
                wait(shown, lambda: "pixels" in shown.find_element(By.ID, "note").text)
                picture = shown.find_element(By.CSS_SELECTOR, "#picture img")
                wait(shown, lambda: int(picture.get_property("naturalWidth")) > 0)
                bottom = shown.find_element(By.ID, "table").rect
                save(shown, args.name, round(bottom["y"] + bottom["height"]) + 24)
        finally:
            served.send_signal(signal.SIGINT)


def take_report(args: argparse.Namespace) -> None:
    """A part of a page of ``negvision report``."""
    with browser() as shown:
        shown.get(Path(args.page).resolve().as_uri())
        heading = shown.find_element(By.XPATH, f"//h2[normalize-space()='{args.section}']")
        save(shown, "report", args.height, round(heading.rect["y"]) - 24)


def main() -> None:
    """Take the picture that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    kinds = parser.add_subparsers(required=True)
    serve = kinds.add_parser("serve", help="the page of negvision serve")
    serve.add_argument("model", help="an exported model, or a config")
    serve.add_argument("checkpoint", nargs="?")
    serve.add_argument("--image", required=True, metavar="FILE", help="is dropped on the page")
    serve.add_argument("--name", default="serve", help="of the picture; default: serve")
    serve.set_defaults(take=take_serve)
    report = kinds.add_parser("report", help="a page of negvision report")
    report.add_argument("page", metavar="PAGE.html")
    report.add_argument("--section", default="Confused classes", help="its heading")
    report.add_argument("--height", type=int, default=1300, help="pixels from there on")
    report.set_defaults(take=take_report)
    args, options = parser.parse_known_args()
    args.options = options
    args.take(args)


if __name__ == "__main__":
    main()
