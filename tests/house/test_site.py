"""The site that ``make docs`` has built: its links, and what a reader sees in a browser.

The browser is Chromium, which opens the site from its folder and can reach no network.
"""

import functools
import html.parser
import json
import re
import urllib.parse
from pathlib import Path

import pytest
from browser import MISSING, started

SITE = Path(__file__).parents[2] / "out" / "site"
FILES = sorted(SITE.rglob("*.html"))
LARGEST = 30 * 2**20  # bytes of the site
built = pytest.mark.skipif(not FILES, reason="make docs builds the site")


class Parts(html.parser.HTMLParser):
    """What a page links to, what it loads, and the places in it that can be linked to."""

    def __init__(self, text):
        super().__init__()
        self.links, self.loads, self.places = [], [], {"", "top"}
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.places |= {attributes[name] for name in ("id", "name") if attributes.get(name)}
        if tag == "a" and "href" in attributes:
            self.links.append(attributes["href"])
        elif attributes.get("rel") not in ("canonical", "index", "search", "next", "prev"):
            self.loads += [attributes[name] for name in ("src", "href") if attributes.get(name)]


@functools.cache
def parts(path):
    return Parts(path.read_text(encoding="utf-8"))


def target(page, link):
    """The file that a relative link of a page leads to, and the place in it."""
    address = urllib.parse.urlsplit(link)
    path = urllib.parse.unquote(address.path)
    return (page.parent / path).resolve() if path else page, urllib.parse.unquote(address.fragment)


def broken(page):
    """The links of a page that lead nowhere, and what it would load that is not there."""
    for link in [*parts(page).links, *parts(page).loads]:
        if link.startswith(("http:", "https:", "data:", "mailto:")):
            continue
        file, place = target(page, link)
        if not file.is_file() or (file.suffix == ".html" and place not in parts(file).places):
            yield link


@built
def test_every_link_within_the_site_leads_somewhere():
    found = {f"{page.relative_to(SITE)}: {link}" for page in FILES for link in broken(page)}
    assert sorted(found) == []


@built
def test_nothing_is_loaded_from_a_network():
    """But for links, of course, and the names of formats."""
    addresses = {x for page in FILES for x in parts(page).loads if re.match(r"(https?:)?//", x)}
    assert addresses == set()


@built
def test_no_page_has_an_address_in_memory():
    """The site would differ each time that it is built."""
    address = re.compile(r"\b0x[0-9a-f]{8,}")
    assert [page for page in FILES if address.search(page.read_text(encoding="utf-8"))] == []


@built
def test_the_site_is_small():
    assert sum(path.stat().st_size for path in SITE.rglob("*") if path.is_file()) < LARGEST


def test_broken_links_are_found(tmp_path):
    page, other = tmp_path / "page.html", tmp_path / "other.html"
    other.write_text('<h1 id="here"></h1>')
    page.write_text(
        '<a href="other.html#here">1</a><a href="other.html#there">2</a><a href="#top">3</a>'
        '<img src="none.png"><a href="https://example.org/x">4</a><a href="#nowhere">5</a>'
    )
    assert sorted(broken(page)) == ["#nowhere", "none.png", "other.html#there"]


# In a browser

SOME = [path for path in FILES if path.parent.name not in ("api", "_modules")]
SOME = [path for path in SOME if "_modules" not in path.parts]
SOME += [path for path in FILES if path.parent.name == "api"][::20]
WIDE, NARROW = (1280, 900), (390, 844)
in_browser = pytest.mark.skipif(
    MISSING or not FILES,
    reason="make docs builds the site; chromium, chromedriver and selenium open it",
)
pages = pytest.mark.parametrize("page", SOME, ids=lambda path: str(path.relative_to(SITE)))

# Of each text that is shown, the contrast of its colour with what lies behind it, as WCAG 2
# defines it; large text needs less. Icons and what a mouse alone brings up are no text.
FAINT = """
const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
function rgba(colour) {
  canvas.clearRect(0, 0, 1, 1);
  canvas.fillStyle = colour;
  canvas.fillRect(0, 0, 1, 1);
  const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
  return [r, g, b, a / 255];
}
function over(front, back) {
  return [0, 1, 2].map(i => front[i] * front[3] + back[i] * (1 - front[3])).concat(1);
}
function behind(node) {
  if (!node) return [255, 255, 255, 1];
  const own = rgba(getComputedStyle(node).backgroundColor);
  return own[3] === 1 ? own : over(own, behind(node.parentElement));
}
function luminance(colour) {
  const [r, g, b] = colour.slice(0, 3).map(x => x / 255).map(
    x => x <= 0.03928 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}
const found = {};
const texts = document.createTreeWalker(document.querySelector("article"), NodeFilter.SHOW_TEXT);
while (texts.nextNode()) {
  const text = texts.currentNode.data.trim(), node = texts.currentNode.parentElement;
  const style = getComputedStyle(node), box = node.getBoundingClientRect();
  if (!text || !box.width || style.visibility === "hidden" || style.opacity === "0") continue;
  if (node.closest(".headerlink, .copybtn, svg, script, style, mjx-container")) continue;
  const back = behind(node), ink = luminance(over(rgba(style.color), back));
  const [low, high] = [ink, luminance(back)].sort((a, b) => a - b);
  const size = parseFloat(style.fontSize), bold = style.fontWeight >= 700;
  const contrast = (high + 0.05) / (low + 0.05);
  if (contrast < (size >= 24 || bold && size >= 18.66 ? 3 : 4.5))
    found[`${node.className || node.tagName}: ${style.color}`] = text.slice(0, 40);
}
return Object.entries(found).map(entry => entry.join(" of "));
"""
FORMULAS = """
return {
  written: document.querySelectorAll("article .math").length,
  shown: document.querySelectorAll("article .math mjx-container > svg").length,
  wrong: [...document.querySelectorAll("[data-mjx-error]")].map(x => x.dataset.mjxError),
};
"""
# What sticks out of the window at its right, but for tables and code, which scroll by themselves.
TOO_WIDE = """
function scrolls(node) {
  return node.tagName !== "ARTICLE"
    && (/auto|scroll/.test(getComputedStyle(node).overflowX) || scrolls(node.parentElement));
}
return [...document.querySelectorAll("article *")]
  .filter(x => x.getBoundingClientRect().right > innerWidth + 1 && !scrolls(x.parentElement))
  .filter(x => !x.closest("mjx-assistive-mml"))
  .map(x => `${x.tagName} ${x.className}: ${x.textContent.slice(0, 60)}`);
"""
RENDERED = "MathJax.startup.promise.then(arguments[0])"


@pytest.fixture(scope="module")
def browser():
    driver = started()
    yield driver
    driver.quit()


def show(browser, page, size, scheme="light"):
    """Opens a page from its folder in a window of a size, in light or dark mode."""
    width, height = size
    screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    browser.get(page.as_uri())
    if browser.execute_script("return 'MathJax' in window"):
        browser.execute_async_script(RENDERED)


def requests(browser):
    """The addresses that the page has asked for since the last call."""
    for entry in browser.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            yield message["params"]["request"]["url"]


@in_browser
@pages
def test_a_page_opens_from_a_folder(browser, page):
    """Without a request to a network or a word on the console, and with its formulas."""
    show(browser, page, WIDE)
    asked = list(requests(browser))
    assert page.as_uri() in asked
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    assert browser.get_log("browser") == []
    formulas = browser.execute_script(FORMULAS)
    assert formulas["shown"] == formulas["written"]
    assert formulas["wrong"] == []


@in_browser
@pages
def test_a_page_fits_a_telephone(browser, page):
    show(browser, page, NARROW)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= NARROW[0]
    assert browser.execute_script(TOO_WIDE) == []


@in_browser
@pages
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out(browser, page, scheme):
    show(browser, page, WIDE, scheme)
    assert browser.execute_script(FAINT) == []


@in_browser
def test_dark_is_dark(browser):
    show(browser, SITE / "index.html", WIDE, "dark")
    colour = "return getComputedStyle(document.body).backgroundColor"
    assert max(map(int, re.findall(r"\d+", browser.execute_script(colour))[:3])) < 64


@in_browser
def test_faint_text_is_found(browser, tmp_path):
    page = tmp_path / "page.html"
    page.write_text(
        '<article><p style="color: #999; background: #aaa">faint</p><p style="color: #767676">'
        'enough</p><h1 style="color: #949494; font-size: 30px">large</h1></article>'
    )
    show(browser, page, WIDE)
    assert browser.execute_script(FAINT) == ["P: rgb(153, 153, 153) of faint"]


@in_browser
def test_search_finds_a_function(browser):
    from selenium.webdriver.support.ui import WebDriverWait

    show(browser, SITE / "search.html", WIDE)
    browser.get(f"{(SITE / 'search.html').as_uri()}?q=soft_values")
    first = "return [...document.querySelectorAll('ul.search li a')].map(x => x.textContent)"
    found = WebDriverWait(browser, 20).until(lambda driver: driver.execute_script(first))
    assert any("soft_values" in title for title in found[:3])
