"""Chromium without a window and without a network, where it is installed."""

import importlib.util
import shutil

PROGRAMS = [shutil.which(name) for name in ("chromium", "chromedriver")]
MISSING = not all(PROGRAMS) or importlib.util.find_spec("selenium") is None


def started():
    """A driver of the browser, which logs its console and its requests; ``quit`` ends it."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = PROGRAMS[0]
    for argument in (
        "--headless=new",
        "--no-sandbox",  # which root cannot have
        "--disable-dev-shm-usage",
        "--host-resolver-rules=MAP * ~NOTFOUND",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    return webdriver.Chrome(options, webdriver.ChromeService(PROGRAMS[1]))
