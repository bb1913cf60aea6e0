"""A browser for the explorer: Chromium, which can reach no network."""

import json

import pytest
from browser import MISSING, started

from cai.explorer.explorer_page import page_of

DRAWN = (
    "const done = arguments[0]; requestAnimationFrame(() => requestAnimationFrame(() => done()));"
)
RESTED = """
const stale = () => document.getElementById("curve").classList.contains("stale");
const wait = () => stale() ? setTimeout(wait, 10) : arguments[0]();
wait();
"""
WIDE = (1280, 1000)


@pytest.fixture(scope="session")
def browser():
    if MISSING:
        pytest.skip("chromium, chromedriver and selenium open the page")
    driver = started()
    yield driver
    driver.quit()


@pytest.fixture(scope="session")
def saved(tmp_path_factory):
    """Writes the page of a table, or without one, and returns its address."""
    kept = {}

    def save(table=None, name="model", recipe=""):
        key = id(table), name, recipe
        if key not in kept:
            path = tmp_path_factory.mktemp("page") / "explore.html"
            page_of(table, name, recipe).save(path)
            kept[key] = path.as_uri(), table  # which is kept, so that its id is no other's
        return kept[key][0]

    return save


class Page:
    """The explorer in the browser."""

    def __init__(self, browser, saved):
        self.browser, self.saved = browser, saved

    def open(self, place="", table=None, size=WIDE, **media):
        """Opens the page at a place such as "eta=0", in a window of a size."""
        width, height = size
        screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        self.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
        features = {"prefers-color-scheme": "light", "prefers-reduced-motion": "no-preference"}
        features |= {name.replace("_", "-"): x for name, x in media.items()}
        features = [{"name": name, "value": x} for name, x in features.items()]
        self.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        self.browser.get("about:blank")  # else a new place in the same file is no new page
        self.browser.get(f"{self.saved(table)}#{place}")
        return self.drawn()

    def drawn(self):
        """Waits for what has changed to be drawn."""
        self.browser.execute_async_script(DRAWN)
        return self

    def rested(self, script="return true"):
        """Waits until the hand has rested and the curve is drawn, which comes last."""
        self.browser.execute_async_script(RESTED)
        return self.run(script)

    def run(self, script, *arguments):
        return self.browser.execute_script(script, *arguments)

    def __getitem__(self, identifier):
        return self.browser.find_element("id", identifier)

    def all(self, selector):
        return self.browser.find_elements("css selector", selector)

    @property
    def state(self):
        return self.run("return window.explorer.state")

    @property
    def text(self):
        return {name: self[name].text for name in ("headline", "explanation", "kl-text", "message")}

    @property
    def numbers(self):
        """Number by name, as precise as the page has it; what is written is tested to be that."""
        script = """
            return [...document.querySelectorAll("[data-number]")].map(
              x => [x.dataset.number, x.dataset.value, x.textContent]);"""
        found = self.run(script)
        for _, value, text in found:
            shown = float(text.replace("−", "-").replace("∞", "inf"))
            assert shown == pytest.approx(float(value), abs=5.01e-4), text
        parts = self.run(
            "return [...document.querySelectorAll('#kl [data-part]')].map("
            "x => [x.dataset.part, x.dataset.value]);"
        )
        return {name: float(value) for name, value, *_ in [*found, *parts]}


@pytest.fixture
def page(browser, saved):
    """The explorer; at the end of a test nothing was asked of a network, or said on the console."""
    browser.get_log("browser"), browser.get_log("performance")
    yield Page(browser, saved)
    asked = list(requests(browser))
    assert [url for url in asked if not url.startswith(("file:", "data:", "about:"))] == []
    assert browser.get_log("browser") == []


def requests(browser):
    """The addresses that were asked for since the last call."""
    for entry in browser.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            yield message["params"]["request"]["url"]
