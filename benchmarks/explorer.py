"""Speed of the explorer in a browser: solving, drawing, and from a move of a slider to the frame.

Run ``python -m benchmarks.explorer``; it needs Chromium, its driver and selenium. Times are in
milliseconds of wall time, which other work on the machine makes longer: the least of them is what
the page needs, the median what it took. The targets are for a quiet machine.

* ``solve`` is all that is shown but the curve: solutions at η, 0 and 1, both chains, and the KL;
* ``drag η`` is the same where only η has moved, as when it is dragged;
* ``draw`` is what the page does besides, without the browser's own layout and paint;
* ``to frame`` is from the input event to the frame that shows it, on the built-in maps.
"""

from __future__ import annotations

import shutil
import statistics
import tempfile
from pathlib import Path
from typing import Any

from cai import plot

# Maps of 49 and 256 states, all of them free.
SOLVE = """
const [side, T, moved, n] = arguments, found = [];
const rows = times(side, i => '.'.repeat(side)).map((x, i) => i ? x : 'S' + x.slice(2) + 'G');
const world = gridworld(rows, {wind: 0.1}), setting = {T, alpha: 0.5, gamma: 1};
let before = explore(world, {...setting, eta: 0.3});
for (let k = 0; k < n; k++) {
  const began = performance.now();
  const now = explore(world, {...setting, eta: 0.3 + k / 100}, moved ? before : null);
  found.push(performance.now() - began);
  before = now;
}
return found;
"""
DRAW = """
const [n, done] = arguments, found = [];
enter('map', times(7, i => i ? '.......' : 'S.....G'));
const step = () => {
  if (found.length) found[found.length - 1] = window.explorer.milliseconds[1];
  if (found.length === n) { done(found); return; }
  turn('eta', -2 + 6 * Math.random());
  found.push(0);
  requestAnimationFrame(step);
};
requestAnimationFrame(step);
"""
TO_FRAME = """
const [name, n, done] = arguments, found = [];
enter('map', MAPS[name]);
const after = new MessageChannel();
let began = 0;
const move = () => {
  const dial = document.getElementById(found.length % 3 ? 'eta' : 'slip');
  dial.value = Number(dial.min) + Math.random() * (dial.max - dial.min);
  began = performance.now();
  dial.dispatchEvent(new Event('input'));
  requestAnimationFrame(() => after.port2.postMessage(null)); // which arrives behind the frame
};
after.port1.onmessage = () => {
  found.push(performance.now() - began);
  if (found.length === n) done(found);
  else setTimeout(move, 5 + 20 * Math.random());
};
move();
"""


def main() -> None:
    """Prints the table."""
    driver = browser()
    try:
        with tempfile.TemporaryDirectory() as folder:
            page = plot.explore().save(Path(folder) / "explore.html")
            driver.get(page.resolve().as_uri())
            print(f"{'':36}{'least':>8}{'median':>8}{'95 %':>8}{'target':>16}")
            for side, T, n in ((7, 30, 200), (16, 60, 60)):
                for what, moved in (("solve", False), ("drag η", True)):
                    found = driver.execute_script(SOLVE, side, T, moved, n)
                    target = "" if moved else f"median {4 if side == 7 else 50}"
                    show(f"{what}, {side * side} states, T = {T}", found, target)
            show("draw, 49 states, T = 30", driver.execute_async_script(DRAW, 200), "median 8")
            found = []
            for name in ("cliff", "bridge", "rooms"):
                found += driver.execute_async_script(TO_FRAME, name, 100)[10:]
            show("to frame, the built-in maps", found, "95 % 50")
    finally:
        driver.quit()


def show(what: str, found: list[float], target: str) -> None:
    """Prints a row of times."""
    found = sorted(found)
    late = found[int(0.95 * len(found))]
    median = statistics.median(found)
    print(f"{what:36}{found[0]:8.1f}{median:8.1f}{late:8.1f}{target:>16}")


def browser() -> Any:
    """Chromium, in a window that nobody sees."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    return webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))


if __name__ == "__main__":
    main()
