"""A browser for the explorer: Chromium, which can reach no network."""

import importlib.util
import json
import shutil

import pytest

from cai.explorer.explorer_page import page_of

PROGRAMS = [shutil.which(name) for name in ("chromium", "chromedriver")]


@pytest.fixture(scope="session")
def browser():
    if not all(PROGRAMS) or importlib.util.find_spec("selenium") is None:
        pytest.skip("chromium, chromedriver and selenium open the page")
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
    driver = webdriver.Chrome(options, webdriver.ChromeService(PROGRAMS[1]))
    yield driver
    driver.quit()


@pytest.fixture(scope="session")
def saved(tmp_path_factory):
    """Writes the page of a table, or without one, and returns its address."""
    kept = {}

    def save(table=None, name="model", recipe=""):
        key = id(table), name
        if key not in kept:
            path = tmp_path_factory.mktemp("page") / "explore.html"
            page_of(table, name, recipe).save(path)
            kept[key] = path.as_uri(), table  # which is kept, so that its id is no other's
        return kept[key][0]

    return save


def requests(browser):
    """The addresses that were asked for since the last call."""
    for entry in browser.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            yield message["params"]["request"]["url"]
