"""What a reader sees and hears of the explorer: pictures, words, colours, on every screen."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb

import cai
from cai import inference, models, plot
from cai.drawing import palette
from cai.explorer.explorer_page import page_of

PHONE = (390, 844)


def keys():
    return pytest.importorskip("selenium.webdriver.common.keys").Keys


# Pictures


def on_cells(page, picture, what):
    """What the texts or arrows of a picture are, cell by cell: {(row, column): text}."""
    script = """
        const {cells, columns} = pictures[arguments[0]];
        return cells.map((x, n) => [Math.floor(n / columns), n % columns, x[arguments[1]].kept]);"""
    return {(i, j): kept for i, j, kept in page.run(script, picture, what)}


def percent(share):
    return "" if share < 5e-4 else "<1" if share < 0.005 else f"{100 * share:.0f}"


@pytest.mark.parametrize("t", [None, 0, 4, 9])
def test_the_maps_show_occupancies(page, t):
    """Numbers in cells, of all steps or of one; shades on one scale of roots for both maps."""
    model = models.gridworld("bridge", horizon=9, temperature=2.0, wind=0.1)
    page.open(f"map=bridge&T=9&alpha=2&wind=0.1{'' if t is None else f'&t={t}'}")
    solution = inference.posterior(model)
    row = cai.compare(model, {"it": solution})["it"]
    both = {"imagines": solution.states, "gets": row.evaluation.states}
    both = {name: x.sum(0) / x.sum() if t is None else x[t] for name, x in both.items()}
    top = max(shares.max().item() for shares in both.values())
    colours = {"imagines": to_rgb(palette.IMAGINED), "gets": to_rgb(palette.REAL)}
    for picture, shares in both.items():
        numbers, fills = on_cells(page, picture, "number"), on_cells(page, picture, "rect")
        for cell, share in zip(model.layout.cells, shares.tolist(), strict=True):
            assert numbers[cell]["text"] == percent(share)
            shade = 255 * (1 + (share / top) ** 0.5 * (np.array(colours[picture]) - 1))
            found = re.findall(r"\d+", fills[cell]["fill"])
            np.testing.assert_allclose(list(map(int, found)), shade, atol=2.5)
        walls = [fills[i, j]["fill"] for i, j in ((0, 0), (2, 1))]
        assert walls == [f"url(#hatch-{picture})"] * 2


@pytest.mark.parametrize(("view", "digits"), [("optimism", 1), ("V", 1), ("Q1", 1)])
def test_the_third_picture_shows_values(page, view, digits):
    model = models.gridworld("bridge", horizon=9, temperature=2.0)
    page.open(f"map=bridge&T=9&alpha=2&eta=0.5&t=2&view={view}")
    it = inference.soft_values(model, 0.5)
    values = {
        "optimism": inference.posterior(model).log_values[2]
        - inference.soft_values(model).log_values[2],
        "V": it.V[2],
        "Q1": it.Q[2, :, 1],
    }[view]
    shown = on_cells(page, "third", "number")
    for cell, value in zip(model.layout.cells, values.tolist(), strict=True):
        number = float(shown[cell]["text"].replace("−", "-"))
        assert number == pytest.approx(value, abs=0.5001 if abs(value) >= 9.95 else 0.0501)
    units = {"optimism": "optimism (nats)", "V": "V (reward units)"}
    title = units.get(view, "Q of right (reward units)")
    assert page["third-title"].text == f"{title}, at t = 2"


def arrows(path):
    """Directions and lengths, in cells, of the arrows of one path."""
    found = {}
    for x, y, ex, ey in re.findall(r"M([\d.]+) ([\d.]+)L([\d.-]+) ([\d.-]+)M", path):
        step = np.array([float(ey) - float(y), float(ex) - float(x)]) / 48 / 0.46
        found[tuple(int(z) for z in np.sign(step.round(2)))] = np.abs(step).max()
    return found


def test_arrows_are_as_long_as_an_action_is_probable(page):
    model = models.gridworld("bridge", horizon=9, temperature=2.0)
    page.open("map=bridge&T=9&alpha=2&eta=0.5&t=3")
    solution = inference.soft_values(model, 0.5)
    policy, visits = solution.policy.log_probs[3].exp(), solution.states[3]
    shown = on_cells(page, "imagines", "arrow")
    grey = set()
    for s, cell in enumerate(model.layout.cells):
        if model.layout.map[cell[0]][cell[1]] in "GP":
            assert shown[cell]["d"] == ""
            continue
        found = arrows(shown[cell]["d"])
        for a, move in enumerate(model.layout.moves):
            p = policy[s, a].item()
            assert (move in found) == (p >= 0.02)
            if p >= 0.02:
                assert found[move] == pytest.approx(p, abs=0.005)
        if shown[cell]["stroke"] == "var(--unseen)":
            grey.add(s)
    assert grey == {
        s
        for s, cell in enumerate(model.layout.cells)
        if visits[s] <= 1e-12 and model.layout.map[cell[0]][cell[1]] not in "GP"
    }
    assert grey


def stay():
    """Two cells, and an action that stays."""
    P = torch.zeros(3, 2, 3)
    P[0, 0, 0] = P[0, 1, 1] = P[1, 0, 1] = P[1, 1, 2] = P[2, :, 2] = 1
    layout = cai.Layout(
        map=("..G",), cells=((0, 0), (0, 1), (0, 2)), moves=((0, 0), (0, 1)), actions=("stay", "go")
    )
    reward = [[-1.0, -1.0], [-1.0, -1.0], [0.0, 0.0]]
    return cai.tabulate(models.tabular(P, reward, horizon=3, layout=layout))


def test_staying_is_a_dot(page):
    page.open("eta=0", table=stay())
    dots = on_cells(page, "gets", "dot")
    assert dots[0, 0]["d"].startswith("M")
    assert dots[0, 2]["d"] == ""
    assert arrows(on_cells(page, "gets", "arrow")[0, 0]["d"]).keys() == {(0, 1)}
    assert page.numbers["goal-real"] > 0.5  # by its letter


def test_states_in_one_cell_add_up(page):
    """Taxi has 500 states in 25 cells."""
    table = cai.tabulate(models.gym("Taxi-v4", horizon=5))
    page.open(table=table)
    states = inference.posterior(table).states.sum(0)
    shares = torch.zeros(len(table.layout.map), len(table.layout.map[0])).double()
    for (i, j), x in zip(table.layout.cells, (states / states.sum()).tolist(), strict=True):
        shares[i, j] += x
    shown = on_cells(page, "imagines", "number")
    for i, j in set(table.layout.cells):
        assert shown[i, j]["text"] == percent(shares[i, j].item())
    assert not {"goal-real", "pit-real"} & page.numbers.keys()  # its G is a stop, not a goal


def plain_table(S=70, name="state"):
    """States in a row without a map, of which the last ones are out of reach."""
    P = torch.zeros(S, 2, S)
    for s in range(S):
        P[s, 0, s] = P[s, 1, min(s + 1, S - 1)] = 0.9
        P[s, :, 0] += 0.1
    layout = cai.Layout(states=tuple(f"{name} {s}" for s in range(S)), actions=("stay", name))
    reward = -torch.ones(S, 2)
    return cai.tabulate(models.tabular(P, reward, horizon=65, layout=layout))


def test_a_model_without_a_map_is_a_list_of_its_states(page):
    table = plain_table()
    page.open("eta=0.5", table=table)
    solution = inference.soft_values(table, 0.5)
    row = cai.compare(table, {"it": solution})["it"]
    shown = [line.text for line in page.all("#list tbody tr")]
    assert len(shown) == 60
    assert not page["maps"].is_displayed()
    assert "60 most visited of 70" in page["scale"].text
    for s, text in enumerate(shown):
        shares = [x.sum(0)[s] / x.sum() for x in (solution.states, row.evaluation.states)]
        assert [f"{100 * x:.1f} %" for x in shares] == re.findall(r"[\d.]+ %", text)
        assert text.startswith(f"state {s}")
    widths = page.run(
        "return [...document.querySelectorAll('#list tr:first-child .policy span')].map("
        "x => x.getBoundingClientRect().width / x.parentElement.clientWidth)"
    )
    policy = row.evaluation.state_actions.sum(0)[0]
    np.testing.assert_allclose(widths, policy / policy.sum(), atol=0.02)
    label = page.all("#list .policy")[0].get_attribute("aria-label")
    stays = 100 * (policy[0] / policy.sum()).item()
    assert label.startswith(f"stay {stays:.1f} %, state ")


def test_what_a_table_has_fixed_is_absent(page):
    page.open(table=plain_table())
    shown = [x.get_attribute("data-dial") for x in page.all("[data-dial]") if x.is_displayed()]
    assert sorted(shown) == ["T", "alpha", "eta", "gamma", "t"]
    for part in ("worlds-part", "brushes-part", "tour", "winds"):
        assert not page[part].is_displayed()


def test_the_curve_is_drawn_when_the_hand_rests(page):
    page.open("map=ledge&eta=0.5")
    page.rested()
    curve = inference.optimism_curve(models.ledge(), [-2.0, 0.0, 1.0, 4.0])
    points = {round(x[0], 9): x[1:] for x in page.run("return trace.points")}
    for k, eta in enumerate((-2.0, 0.0, 1.0, 4.0)):
        assert points[eta] == pytest.approx([curve.bound[k].item(), curve.elbo[k].item()])
    at = float(page.run("return curve.now.getAttribute('x1')"))
    left, right = (float(page.run(f"return curve.x({eta})")) for eta in (0, 1))
    assert at == pytest.approx((left + right) / 2)
    stale = "return $('curve').classList.contains('stale')"
    assert page.run(f"turn('alpha', 2); {stale}")
    assert not page.rested(stale)
    colder = inference.soft_values(models.ledge(temperature=2.0), 4.0)
    assert page.run("return trace.points.at(-1)")[1] == pytest.approx(colder.bound)


# Time


def test_play_goes_from_step_to_step(page):
    page.open("map=ledge&T=2")
    wait = """
        const seen = [], done = arguments[0];
        new MutationObserver(() => seen.push($('t-words').textContent))
          .observe($('t-words'), {childList: true});
        $('play').click();
        const wait = () => playing ? setTimeout(wait, 50) : done(seen);
        wait();"""
    seen = page.browser.execute_async_script(wait)
    assert list(dict.fromkeys(seen)) == ["t = 0", "t = 1", "t = 2"]
    assert page["play"].text == "play"
    assert page["t-words"].text == "t = 2"


def test_reduced_motion(page):
    """A press is a step, and nothing moves by itself."""
    page.open("map=ledge&T=2", prefers_reduced_motion="reduce")
    assert page["play"].text == "next step"
    for t in (0, 1, 2, 0):
        page["play"].click()
        assert page.drawn().state["t"] == t
        assert page.rested("return state.t") == t
    moving = """
        return [...document.querySelectorAll("*")].filter(x => {
          const style = getComputedStyle(x);
          return style.animationName !== "none" || style.transitionDuration !== "0s";
        }).length"""
    assert page.run(moving) == 0


# Words


def test_numbers_are_announced_once_the_hand_rests(page):
    page.open("map=ledge")
    page.rested()
    assert page["announcement"].get_attribute("aria-live") == "polite"
    said = page.run("return document.getElementById('announcement').textContent")
    assert page.text["headline"] in said
    page.run("""
        window.spoken = [];
        const note = () => spoken.push($('announcement').textContent);
        new MutationObserver(note).observe($('announcement'), {childList: true});
        for (const eta of [0.9, 0.8, 0.7, 0.6]) turn('eta', eta);""")
    spoken = page.rested("return spoken")
    assert len(spoken) == 1  # not while it moves
    assert spoken[0] != said
    assert page.text["headline"] in spoken[0]
    page["eta"].send_keys(keys().ARROW_LEFT)
    assert page.rested("return spoken.length") == 2
    live = page.run(
        "return [...document.querySelectorAll('[aria-live], [role=status]')].map(x => x.id)"
    )
    assert sorted(live) == ["announcement", "message"]


def test_the_tour_says_what_is_true(page):
    page.open()
    shown = []
    for k in range(5):
        page.all("#stops button")[k].click()
        page.drawn()
        shown.append((page.state, page.numbers, page.text["headline"], page["story"].text))
    ledge, honest, level, mortal, own = shown
    assert ledge[0]["kind"] == "ledge"
    assert ledge[1]["goal-imagined"] > ledge[1]["goal-real"] + 0.2
    assert honest[2] == "It counts on no luck."
    assert honest[1]["elbo-real"] > ledge[1]["elbo-real"]
    path = inference.soft_values(models.ledge()).policy.log_probs[0, 0].exp()
    assert path[1] > 0.5  # mostly the path
    assert level[2] == "There is no luck to count on."
    assert level[0]["slip"] == 0
    assert mortal[0]["gamma"] < 1
    assert mortal[1]["return-imagined"] > mortal[1]["return-real"]
    assert mortal[2].startswith("It counts on")
    alive = [mortal[1][f"goal-{what}"] for what in ("imagined", "real")]
    assert alive[0] < alive[1]  # it imagines to end before it is there
    assert own[0]["map"] == list(models.gridworld("bridge").layout.map)
    assert len({story for *_, story in shown}) == 5


@pytest.mark.parametrize(
    ("place", "headline", "word"),
    [
        ("map=ledge&eta=1", r"It counts on [\d.]+ nats of luck\.", "it conditions on success"),
        ("map=ledge&eta=-1", r"It fears [\d.]+ nats of bad luck\.", "nature plays against it"),
        ("map=ledge&eta=0", r"It counts on no luck\.", "the dynamics stay as they are"),
        (
            "map=ledge&eta=0.5&gives=0",
            r"There is no luck to count on\.",
            "nothing is left to chance",
        ),
    ],
)
def test_the_headline(page, place, headline, word):
    page.open(place)
    assert re.fullmatch(headline, page.text["headline"])
    assert word in page.text["explanation"]


NAMES = [
    "<b>bold</b>",
    "</script><script>alert(1)</script>",
    "\"quoted\" 'names' & more",
    "a\u2028b",
]
NAMES += ["<!-- a comment", "{{scripts}}", "Zoë's ☂", "</title><b>"]


def test_names_are_text(page, saved):
    n = len(NAMES)
    layout = cai.Layout(states=tuple(NAMES), actions=("<i>", "]]>"))
    P = torch.full((n, 2, n), 1 / n)
    table = cai.tabulate(models.tabular(P, torch.zeros(n, 2), horizon=2, layout=layout))
    address = saved(table, "".join(NAMES), f"model = {NAMES[2]!r}")
    page.browser.get(f"{address}#view=Q0")
    page.drawn()
    shown = page.run(
        "return [...document.querySelectorAll('#list tbody th')].map(x => x.textContent)"
    )
    assert shown == NAMES
    assert page.run("return document.title") == f"Turn the dial: {''.join(NAMES)}"
    assert page.run("return document.querySelectorAll('b, i:not([class], #list i)').length") == 0
    assert "Q of <i>" in page["view"].text
    assert page.run("return TABLE.recipe") == f"model = {NAMES[2]!r}"


# On every screen

TOO_WIDE = """
const scrolls = x =>
  x && (/auto|scroll/.test(getComputedStyle(x).overflowX) || scrolls(x.parentElement));
return [...document.querySelectorAll("article *")]
  .filter(x => !x.closest(".unseen") && x.getBoundingClientRect().right > innerWidth + 1)
  .filter(x => !scrolls(x.parentElement)).map(x => `${x.tagName} ${x.id} ${x.className}`);
"""


@pytest.mark.parametrize("place", ["", "map=ledge&tour=1", "a table"])
def test_it_fits_a_telephone(page, place):
    if place == "a table":
        page.open(table=plain_table(), size=PHONE)
    else:
        page.open(place, size=PHONE)
    page.run("document.getElementById('python').open = true")
    page.rested()
    assert page.run("return document.documentElement.scrollWidth") <= PHONE[0]
    assert page.run(TOO_WIDE) == []
    small = page.run(
        "return [...document.querySelectorAll('button, select, input[type=range]')].filter("
        "x => x.checkVisibility() && x.getBoundingClientRect().height < 24).map(x => x.id)"
    )
    assert small == []  # WCAG 2.2, 2.5.8
    page.run("scrollTo(0, 700)")
    assert page.drawn()["dial"].rect["y"] >= 690  # stays in sight, above the maps


CONTRASTS = Path(__file__).with_name("contrasts.js").read_text(encoding="utf-8")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(
    "place", ["map=rooms&view=V", "map=cliff&eta=-1&tour=2", "map=ledge&tour=1"]
)
def test_everything_stands_out(page, place, scheme):
    page.open(place, prefers_color_scheme=scheme)
    page.run("document.getElementById('python').open = true")
    page.rested()
    page.run("say('A message.')")
    found = page.run(CONTRASTS)
    assert len(found) > 100 or "ledge" in place
    assert [(what, ratio) for what, ratio, least in found if ratio < least] == []
    dark = page.run(
        "return luminance(getComputedStyle(document.body).backgroundColor.match(/\\d+/g))"
    )
    assert (dark < 0.05) == (scheme == "dark")


def test_faint_text_would_be_found(page):
    page.open("map=ledge")
    page.run("document.getElementById('headline').style.color = '#999'")
    assert any(ratio < least for what, ratio, least in page.run(CONTRASTS) if "headline" in what)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_have_the_meanings_of_the_figures(page, scheme):
    page.open(prefers_color_scheme=scheme)
    script = (
        "return getComputedStyle(document.documentElement).getPropertyValue(arguments[0]).trim()"
    )
    for name in ("IMAGINED", "REAL", "START", "ACTIONS", "DYNAMICS"):
        assert page.run(script, f"--{name.lower()}") == getattr(palette, name)
    strongest = {x.get("fill") for x in on_cells(page, "imagines", "rect").values()}
    red, green, blue = (int(palette.IMAGINED[k : k + 2], 16) for k in (1, 3, 5))
    assert f"rgb({red},{green},{blue})" in strongest


def test_a_notebook_shows_it_in_a_frame(page, tmp_path):
    """Which can reach nothing outside of it."""
    shown = plot.explore(models.ledge(), name='a "ledge" & more')._repr_html_()
    file = tmp_path / "notebook.html"
    file.write_text(f"<!doctype html><meta charset=utf-8><p>before</p>{shown}<p>after</p>", "utf-8")
    page.browser.get(file.as_uri())
    page.browser.switch_to.frame(0)
    try:
        page.drawn()
        row = cai.compare(models.ledge(), {"it": inference.posterior(models.ledge())})["it"]
        assert page.numbers["elbo-real"] == pytest.approx(row.elbo)
        assert page["title"].text == 'Turn the dial: a "ledge" & more'
        page["eta"].send_keys(keys().ARROW_LEFT)
        page.rested()
        assert page.state["eta"] == pytest.approx(0.95)
        outside = "try { return parent.document.title; } catch (error) { return error.name; }"
        assert page.run(outside) == "SecurityError"
        page.run("document.getElementById('python').open = true")
        page["copy"].click()
        assert page.run("return getSelection().toString() || code.value").startswith("import")
    finally:
        page.browser.switch_to.default_content()


def test_it_is_small_and_the_same_each_time():
    page = page_of(None)
    assert len(page.html.encode()) <= 60_000
    assert page.html == page_of(None).html
