"""Every public function says what it takes, returns and raises, and shows an example that runs."""

import doctest
import inspect

import matplotlib
import pytest

import cai
from cai import inference, models, plot

FUNCTIONS = {
    f"{package.__name__}.{name}": getattr(package, name)
    for package in (cai, inference, models, plot)
    for name in package.__all__
    if inspect.isfunction(getattr(package, name))
}
# Nothing of what these are given is refused.
NEVER_RAISE = {"cai.blind", "cai.models.published", "cai.plot.optimism_curve"}
NEVER_RAISE |= {"cai.plot.price_ladder"}


def sections(name):
    """What the docstring of a function has to have."""
    function = FUNCTIONS[name]
    yield from ["Args:"] if inspect.signature(function).parameters else []
    yield "Returns:"
    yield from ["Raises:"] if name not in NEVER_RAISE else []
    yield ">>>"


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_says_what_it_takes_and_returns_and_shows_how(name):
    doc = inspect.getdoc(FUNCTIONS[name])
    lines = {line.strip().split(" ")[0] for line in doc.splitlines()}
    assert [part for part in sections(name) if part not in lines] == []


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_argument_is_explained(name):
    function = FUNCTIONS[name]
    doc = inspect.getdoc(function)
    explained = doc.partition("Args:")[2].partition("Returns:")[0]
    missing = [x for x in inspect.signature(function).parameters if f"{x}: " not in explained]
    assert [x for x in missing if f"{x}, " not in explained] == []


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_examples_run(name):
    """Each in a namespace of its own, as a reader would paste it."""
    matplotlib.use("Agg")
    function = inspect.unwrap(FUNCTIONS[name])
    finder = doctest.DocTestFinder(recurse=False)
    (example,) = finder.find(function, name, globs={})
    said = []
    outcome = doctest.DocTestRunner(verbose=False).run(example, out=said.append)
    assert outcome.attempted > 0
    assert outcome.failed == 0, "".join(said)
