"""Public functions and classes document arguments and results, with an example that runs."""

import doctest
import inspect

import matplotlib
import pytest

import cai
from cai import inference, models, plot

PUBLIC = {
    f"{package.__name__}.{name}": getattr(package, name)
    for package in (cai, inference, models, plot)
    for name in package.__all__
    if not inspect.ismodule(getattr(package, name))
}
FUNCTIONS = {name: x for name, x in PUBLIC.items() if inspect.isfunction(x)}
CLASSES = {name: x for name, x in PUBLIC.items() if inspect.isclass(x)}
# These accept any argument.
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


@pytest.mark.parametrize("name", CLASSES)
def test_every_class_explains_what_it_is_made_of(name):
    """The arguments of its constructor, or its attributes if a function makes it."""
    doc = inspect.getdoc(CLASSES[name])
    taken = [x for x in inspect.signature(CLASSES[name]).parameters if not x.startswith("_")]
    assert not taken or "Args:" in doc or "Attributes:" in doc


@pytest.mark.parametrize("name", FUNCTIONS | CLASSES)
def test_the_examples_run(name):
    """Each in a namespace of its own, as a reader would paste it."""
    matplotlib.use("Agg")
    described = inspect.unwrap(PUBLIC[name])
    finder = doctest.DocTestFinder(recurse=False)
    (example,) = finder.find(described, name, globs={})
    said = []
    outcome = doctest.DocTestRunner(verbose=False).run(example, out=said.append)
    assert outcome.attempted > 0
    assert outcome.failed == 0, "".join(said)
