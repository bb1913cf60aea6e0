"""The page in a browser: its dials, its map, its address and its numbers, against the library."""

import dataclasses
import random
import re
import urllib.parse

import pytest
import torch
from test_explorer_solver import random_table

import cai
from cai import inference, models

TOLERANCE = 1e-9
SHOWN = "return document.querySelector('article').outerHTML"


def keys():
    return pytest.importorskip("selenium.webdriver.common.keys").Keys


def actions(page):
    return pytest.importorskip("selenium.webdriver").ActionChains(page.browser, duration=20)


def model_of(state):
    """The model that the library makes of what the page shows."""
    shared = {"horizon": state["T"], "temperature": state["alpha"], "discount": state["gamma"]}
    if state["kind"] == "ledge":
        return models.ledge(**shared, gives_way=state["gives"], fall_reward=state["fall"])
    return models.gridworld(
        state["map"],
        **shared,
        slip=state["slip"],
        wind=state["wind"],
        wind_direction=state["windDirection"],
        step_reward=state["step"],
        goal_reward=state["goal"],
        pit_reward=state["pit"],
    )


def check_numbers(page, model=None):
    """What the page shows is what ``compare`` says of the same problem."""
    state = page.drawn().state
    table = cai.tabulate(model or model_of(state))
    solution = inference.soft_values(table, state["eta"])
    row = cai.compare(table, {"it": solution})["it"]
    wanted = {
        "elbo-imagined": solution.bound,
        "elbo-real": row.elbo,
        "return-imagined": solution.imagined_return,
        "return-real": row.expected_return,
        "start": row.kl_start,
        "actions": row.kl_actions,
        "dynamics": row.kl_dynamics,
    }
    layout = table.layout
    kinds = {"goal": "G", "pit": "PH"} if layout and layout.map else {}
    for kind, letters in kinds.items():
        inside = torch.tensor([layout.map[i][j] in letters for i, j in layout.cells])
        if inside.any():
            wanted[f"{kind}-imagined"] = solution.states[-1, inside].sum().item()
            wanted[f"{kind}-real"] = row.evaluation.states[-1, inside].sum().item()
    found = page.numbers
    assert found.keys() >= wanted.keys()
    for name, number in wanted.items():
        assert found[name] == pytest.approx(number, rel=TOLERANCE, abs=TOLERANCE), name
    if solution.optimism > 0 and row.optimism_gap > 0.05:
        counts = f"It counts on {row.optimism_gap:.1f} nats of luck."
        assert page.text["headline"] == counts
    return row


def test_what_is_seen_first(page):
    row = check_numbers(page.open())
    assert page.text["headline"] == f"It counts on {row.optimism_gap:.1f} nats of luck."
    returns = [f"{x:.2f}".replace("-", "−") for x in (row.imagined_return, row.expected_return)]
    assert all(x in page.text["explanation"] for x in returns)
    assert f"log p(O) = {row.elbo + row.kl:.3f}".replace("-", "−") in page.text["kl-text"]


MAP_DIALS = ("eta", "alpha", "slip", "wind", "T", "gamma", "step", "goal", "pit")
LEDGE_DIALS = ("eta", "alpha", "gives", "T", "gamma", "fall")
DIALS = [("bridge", x) for x in MAP_DIALS] + [("ledge", x) for x in LEDGE_DIALS]
PLACE = "map={}&eta=0.5&gamma=0.95&T=12&alpha=1&wind=0.1&pit=-20"


@pytest.mark.parametrize("world", ["bridge", "ledge"])
def test_every_dial_by_keyboard(page, world):
    """One press is one step of the slider, and the numbers are those of the library."""
    page.open(PLACE.format(world))
    for of, name in DIALS:
        if of != world:
            continue
        before = page.state[name]
        page[name].send_keys(keys().ARROW_LEFT)
        after = page.drawn().state[name]
        if name == "alpha":
            assert after == pytest.approx(10**-0.02, rel=0.01)
        elif name == "goal":
            assert after == -0.5
        elif before > float(page[name].get_attribute("min")):
            step = page.run("return DIALS[arguments[0]].step", name)
            assert after == pytest.approx(before - step), name
        check_numbers(page)


@pytest.mark.parametrize("world", ["bridge", "ledge"])
def test_every_dial_by_mouse(page, world):
    page.open(PLACE.format(world))
    for of, name in DIALS:
        if of != world:
            continue
        before = page.state[name]
        dial = page[name]
        page.run("arguments[0].scrollIntoView({block: 'center'})", dial)
        actions(page).move_to_element(dial).click_and_hold().move_by_offset(
            -31, 0
        ).release().perform()
        after = page.drawn().state[name]
        assert after != before, name
        assert page[f"{name}-number"].get_attribute("value") == f"{after:g}"
        check_numbers(page)


def write(page, name, text, end="\ue007"):
    """Types a number in place of the one that is there, and Enter, as the keys are numbered."""
    page[f"{name}-number"].send_keys(keys().CONTROL + "a")
    page[f"{name}-number"].send_keys(text or keys().DELETE, end)
    return page.drawn()


def test_every_dial_by_number(page):
    """Typed as it is wanted, between the steps of the slider; what is too large is the largest."""
    page.open("map=bridge&T=9")
    for name, typed in (("eta", "0.37"), ("alpha", "0.123"), ("slip", "0.333"), ("gamma", "0.8")):
        assert write(page, name, typed).state[name] == float(typed)
        check_numbers(page)
    for typed, kept in (("99", 4), ("-99", -2), ("", -2)):
        assert write(page, "eta", typed, keys().TAB).state["eta"] == kept
        assert page["eta-number"].get_attribute("value") == str(kept)


def test_zero_and_one_attract_the_mouse_and_not_the_keyboard(page):
    page.open("eta=0.5")
    dial = page["eta"]
    width = dial.size["width"]
    for near, mark in ((1.06, 1), (-0.05, 0), (0.5, 0.5)):
        x = (near + 2) / 6 - 0.5
        page.run("arguments[0].value = 3", dial)  # so that the mouse has to drag it
        start = actions(page).move_to_element(dial).click_and_hold()
        start.move_to_element_with_offset(dial, round(x * (width - 16)), 0).release().perform()
        assert page.drawn().state["eta"] == pytest.approx(mark, abs=0.06 if mark == 0.5 else 0)
    page.open("eta=1")
    page["eta"].send_keys(keys().ARROW_RIGHT)
    assert page.drawn().state["eta"] == pytest.approx(1.05)


def test_the_direction_of_the_wind(page):
    page.open("map=bridge&wind=0.3&T=10&alpha=2")
    select = pytest.importorskip("selenium.webdriver.support.ui").Select(page["windDirection"])
    for direction in ("up", "left"):
        select.select_by_visible_text(direction)
        assert page.drawn().state["windDirection"] == direction
        check_numbers(page)


EXTREMES = {
    "eta": (-2, -0.001, 0.001, 4),
    "alpha": (0.01, 10),
    "slip": (0, 1),
    "wind": (0, 0.3, 1),
    "windDirection": ("up", "left"),
    "T": (1, 40),
    "gamma": (0.5, 0.999, 1),
    "step": (-5, 0, 1),
    "goal": (-10, 50),
    "pit": (-200, 0),
    "t": (0, 1, 40),
    "view": ("V", "Q0", "Q3"),
}


@pytest.mark.parametrize("seed", range(6))
def test_the_ends_of_the_dials(page, seed):
    draw = random.Random(seed)
    rows = ["".join(draw.choices("..#GP", k=5)) for _ in range(draw.randint(1, 4))]
    place = {name: draw.choice(values) for name, values in EXTREMES.items()}
    rows[0] = "S" + rows[0][1:]
    page.open(urllib.parse.urlencode({"map": "/".join(rows)} | place))
    assert page.state["map"] == rows
    check_numbers(page)
    page.rested()
    assert not re.search("NaN|undefined", page.run(SHOWN))


@pytest.mark.parametrize("seed", range(6))
def test_random_tables_are_drawn(page, seed):
    """Without a map: forbidden actions, rewards of -inf, steps that differ, and p(O) = 0."""
    draw = random.Random(seed)
    table = random_table(draw, timed=seed % 2 == 0)
    page.open(f"eta={draw.choice((-1, 0, 0.5, 1))}&t={draw.randint(0, 3)}&view=Q0", table=table)
    page.rested()
    assert not re.search("NaN|undefined", page.run(SHOWN))
    assert page.state["view"] == "Q0"
    assert "Q of action 0" in page["view"].text
    if not page.text["headline"].startswith("p(O) = 0"):
        check_numbers(page, table)


# Painting

ROWS = "S..G/..../...P"


def cell(page, i, j, picture="imagines"):
    (found,) = page.all(f"#{picture} rect[data-cell='{i},{j}']")
    return found


def brush(page, letter):
    page.all(f"[data-brush='{letter}']")[0].click()


def test_a_cell_is_painted_by_a_click(page):
    page.open(f"map={ROWS}&T=10&alpha=2")
    for letter, picture in (("#", "imagines"), ("P", "gets"), ("G", "third"), (".", "gets")):
        brush(page, letter)
        cell(page, 1, 1, picture).click()
        assert page.drawn().state["map"] == ["S..G", f".{letter}..", "...P"]
        check_numbers(page)
    brush(page, "S")
    cell(page, 2, 0).click()
    assert page.drawn().state["map"] == ["S..G", "....", "S..P"]  # two, equally likely
    check_numbers(page)


def test_cells_are_painted_by_a_drag(page):
    page.open(f"map={ROWS}&T=10&alpha=2")
    brush(page, "#")
    start = actions(page).move_to_element(cell(page, 2, 0)).click_and_hold()
    start.move_to_element(cell(page, 2, 2)).move_to_element(cell(page, 1, 2)).release().perform()
    assert page.drawn().state["map"] == ["S..G", "..#.", "###P"]
    check_numbers(page)
    actions(page).move_to_element(cell(page, 0, 1)).perform()  # with the button up
    assert page.drawn().state["map"] == ["S..G", "..#.", "###P"]
    page["undo"].click()  # one stroke is one step back
    assert page.drawn().state["map"] == ["S..G", "....", "...P"]


def test_cells_are_painted_by_keyboard(page):
    page.open(f"map={ROWS}&T=10&alpha=2")
    brush(page, "#")
    first = cell(page, 0, 0, "gets")
    first.send_keys(keys().ARROW_DOWN)
    page.browser.switch_to.active_element.send_keys(keys().ARROW_RIGHT)
    here = page.browser.switch_to.active_element
    assert here.get_attribute("data-cell") == "1,1"
    here.send_keys(keys().ENTER)
    assert page.drawn().state["map"] == ["S..G", ".#..", "...P"]
    here.send_keys(keys().ARROW_RIGHT)
    page.browser.switch_to.active_element.send_keys(keys().SPACE)
    assert page.drawn().state["map"] == ["S..G", ".##.", "...P"]
    check_numbers(page)
    assert len(page.all("#gets rect[tabindex='0']")) == 1  # one stop for Tab, wherever one is


def test_a_finger_paints_by_a_tap_and_scrolls_by_a_drag(page):
    page.open(f"map={ROWS}&T=10&alpha=2", size=(390, 844))
    brush(page, "#")
    target = cell(page, 1, 1)

    def touch(kind, *points):
        points = [{"x": x, "y": y} for x, y in points]
        page.browser.execute_cdp_cmd(
            "Input.dispatchTouchEvent", {"type": kind, "touchPoints": points}
        )

    def middle():
        page.run("arguments[0].scrollIntoView({block: 'center'})", target)
        box = page.run("return arguments[0].getBoundingClientRect().toJSON()", target)
        return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

    x, y = middle()
    touch("touchStart", (x, y))
    for k in range(1, 6):
        touch("touchMove", (x, y - 20 * k))
    touch("touchEnd")
    still = """
        const wait = before => setTimeout(
          () => scrollY === before ? arguments[0](scrollY) : wait(scrollY), 150);
        wait(-1);"""
    assert page.browser.execute_async_script(still) > 0  # since a tap would only stop it
    touch("touchStart", middle())
    touch("touchEnd")
    painted = "const wait = () => past.length ? arguments[0]() : setTimeout(wait, 10); wait();"
    page.browser.execute_async_script(painted)
    assert page.state["map"] == ["S..G", ".#..", "...P"]  # by the tap alone


def test_cells_are_labelled_buttons(page):
    page.open(f"map={ROWS}&T=10&alpha=2&eta=1")
    table = cai.tabulate(model_of(page.state))
    solution = inference.posterior(table)
    imagined = 100 * solution.states[:, 0].sum() / solution.states.sum()
    label = cell(page, 0, 0).get_attribute("aria-label")
    assert label.startswith(f"row 1, column 1, start: imagined {imagined:.1f} %, real ")
    roles = page.run(
        "return [...document.querySelectorAll('#maps rect[data-cell]')].map(x => x.role)"
    )
    assert roles == ["button"] * 36
    assert page.run("return [...document.querySelectorAll('button')].every(x => x.textContent)")


def test_a_map_needs_a_start(page):
    page.open(f"map={ROWS}")
    brush(page, ".")
    cell(page, 0, 0).click()
    assert page.drawn().state["map"] == ROWS.split("/")
    assert page.text["message"] == "A map needs a start: paint another one first."
    page.open("map=..G/...")
    assert "no start S" in page.text["message"]
    assert page.state["map"] == list(page.run("return MAPS.cliff"))
    check_numbers(page)


@pytest.mark.parametrize(
    ("place", "word"),
    [
        ("map=S.G/..", "different lengths"),
        ("map=S.X", "letters"),
        ("map=", "different lengths"),
        ("map=S" + 49 * ".", "more than 40"),
        ("eta=much", "eta=much"),
    ],
)
def test_an_address_that_cannot_be_read_is_said(page, place, word):
    page.open(place)
    assert word in page.text["message"]
    check_numbers(page)


def test_a_goal_that_is_walled_in(page):
    page.open("map=S.%23G/..%23%23&T=6&alpha=2")
    check_numbers(page)
    assert page.numbers["goal-real"] == page.numbers["goal-imagined"] == 0


def nothing_to_condition_on():
    reward = [[-float("inf")] * 2] * 2
    return cai.tabulate(models.tabular([[[0.5, 0.5]] * 2] * 2, reward, horizon=3))


def test_no_evidence_is_said(page):
    page.open(table=nothing_to_condition_on())
    for eta in ("1", "0", "-1"):
        write(page, "eta", eta)
        assert page.text["headline"] == "p(O) = 0: there is nothing to condition on."
        page.rested()
        assert "NaN" not in page.run("return document.body.innerText")
        assert page.numbers["elbo-real"] == -float("inf")


def test_a_risk_that_cannot_be_avoided_is_infinite(page):
    """At η = 0 the bound is -∞, and log p(O) is not."""
    model = models.tabular(
        [[[0.5, 0.5]], [[0.0, 1.0]]], [[0.0], [-float("inf")]], horizon=1, final_reward=[0.0, 0.0]
    )
    model = dataclasses.replace(model, horizon=2)
    table = cai.tabulate(model)
    page.open("eta=1", table=table)
    assert page.text["headline"] == "It counts on ∞ nats of luck."
    assert "dynamics ∞" in page.text["kl-text"]
    page.open("eta=0", table=table)
    assert page.text["headline"] == "It fears the worst: its bound is −∞."
    assert "NaN" not in page.run("return document.body.innerText")


# The address


def test_a_reload_keeps_the_state(page):
    at_first = page.open("map=bridge").state
    brush(page, "#")
    cell(page, 1, 1).click()
    select = pytest.importorskip("selenium.webdriver.support.ui").Select
    select(page["windDirection"]).select_by_visible_text("left")
    select(page["view"]).select_by_visible_text("Q of down")
    for name in (*MAP_DIALS, "t"):
        page[name].send_keys(keys().ARROW_LEFT if name == "gamma" else keys().ARROW_RIGHT)
    before = page.rested("return window.explorer.state")
    same = [name for name, x in before.items() if at_first[name] == x]
    assert sorted(same) == ["fall", "gives", "kind", "tour"]  # of the ledge, or of all maps
    page.browser.refresh()
    assert page.drawn().state == before
    link = page.browser.current_url.partition("#")[2]
    page.open(link)  # which a teacher sends
    assert page.state == before
    check_numbers(page)


def test_back_and_undo(page):
    page.open("map=bridge&alpha=2")
    page.all("[data-world=rooms]")[0].click()
    rooms = page.drawn().state
    page.rested()
    page.all("[data-world=ledge]")[0].click()
    assert page.drawn().state["kind"] == "ledge"
    page.rested()
    page.browser.back()
    assert page.drawn().state == rooms
    page.rested()
    page.browser.back()
    assert page.drawn().state["alpha"] == 2
    page.open("map=bridge")
    start = page.state
    page["slip"].send_keys(keys().ARROW_RIGHT)
    page.rested()
    page["wind"].send_keys(keys().ARROW_RIGHT)
    page.rested()
    page["undo"].click()
    assert page.drawn().state == start | {"slip": pytest.approx(0.11)}
    page["undo"].click()
    assert page.drawn().state == start
    assert not page["undo"].is_enabled()


def test_reset(page):
    page.open("map=bridge")
    start = page.state
    brush(page, "#")
    cell(page, 1, 1).click()
    for name in ("eta", "T", "pit", "t"):
        page[name].send_keys(keys().ARROW_RIGHT)
    assert page.drawn().state != start
    page["reset"].click()
    assert page.drawn().state == start
