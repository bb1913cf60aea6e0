"""The course: each notebook says what it needs and ends with exercises, whose answers run."""

import re
import runpy
from itertools import pairwise
from pathlib import Path

import nbformat
import pytest
import torch

ROOT = Path(__file__).parents[2]
TUTORIALS = ROOT / "tutorials"


def number_of(path):
    return int(path.stem.partition("_")[0])


NOTEBOOKS = sorted(TUTORIALS.glob("[0-9]*.ipynb"), key=number_of)
RUN_ANSWERS = TUTORIALS / "answers" / "__main__.py"

EXERCISE = re.compile(r"^(\d+)\. \*\*[^*]+\*\*", re.MULTILINE)
HINT = re.compile(r"<details><summary>Hint</summary>.+?</details>", re.DOTALL)
LINK = re.compile(r"\]\(([^)#]+)\)")


def prose(path):
    """The Markdown cells of a notebook."""
    cells = nbformat.read(path, as_version=4).cells
    return [cell.source for cell in cells if cell.cell_type == "markdown"]


def section(text, title):
    """What stands below a heading, up to the next one of its level."""
    found = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    return found[1] if found else ""


def exercises(path):
    """The text of each exercise by its number."""
    text = section("\n\n".join(prose(path)), "Exercises")
    starts = [*EXERCISE.finditer(text), None]
    return {
        int(here[1]): text[here.start() : after.start() if after else len(text)]
        for here, after in pairwise(starts)
    }


def answers(path):
    """The functions that answer the exercises of a notebook, by number."""
    return runpy.run_path(str(RUN_ANSWERS))["answers"](RUN_ANSWERS.with_name(f"{path.stem}.py"))


ALL = [
    pytest.param(path, number, id=f"{path.stem}-{number}")
    for path in NOTEBOOKS
    for number in exercises(path)
]


def test_notebooks_are_numbered_from_one():
    numbers = [number_of(path) for path in NOTEBOOKS]
    assert numbers == list(range(1, len(NOTEBOOKS) + 1))
    assert len(numbers) >= 15


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_says_what_it_needs_and_what_it_teaches(path):
    opening = "\n\n".join(prose(path)[:2])
    for words in ("**Before you start.** You need ", "Running time: ", "**Afterwards you can** "):
        assert words in opening


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_has_exercises_with_hints(path):
    found = exercises(path)
    assert list(found) == list(range(1, len(found) + 1))
    assert len(found) >= 2
    for text in found.values():
        assert len(HINT.findall(text)) == 1, text


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_ends_with_what_to_read_next(path):
    closing = prose(path)[-1]
    assert closing.startswith("## What to read next\n")
    assert f"(answers/{path.stem}.py)" in closing


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_exercise_has_one_answer(path):
    found = answers(path)
    assert sorted(found) == list(exercises(path))
    for answer in found.values():
        assert answer.__doc__


@pytest.mark.parametrize(("path", "number"), ALL)
def test_an_answer_runs_and_proves_what_it_says(path, number, capsys):
    torch.manual_seed(0)
    answers(path)[number]()
    assert capsys.readouterr().out, "an answer shows its numbers"


def test_answers_are_printed_by_number(capsys):
    main = runpy.run_path(str(RUN_ANSWERS))["main"]
    main(["4"])
    shown = capsys.readouterr().out
    assert [shown.count(f"Exercise {number}. ") for number in range(1, 6)] == [1, 1, 1, 0, 0]
    for wrong in ([], ["16"], ["1", "2"]):
        with pytest.raises(SystemExit, match="number of a notebook, 1 to 15"):
            main(wrong)


@pytest.mark.parametrize("path", [*NOTEBOOKS, TUTORIALS / "README.md"], ids=lambda path: path.stem)
def test_links_between_lessons_lead_somewhere(path):
    text = path.read_text(encoding="utf-8") if path.suffix == ".md" else "\n".join(prose(path))
    targets = [link for link in LINK.findall(text) if not link.startswith("http")]
    assert targets
    for target in targets:
        assert (path.parent / target).exists(), target


def test_the_overview_names_every_notebook():
    overview = (TUTORIALS / "README.md").read_text(encoding="utf-8")
    for path in NOTEBOOKS:
        assert f"({path.name})" in overview
        assert path.stem in (ROOT / "README.md").read_text(encoding="utf-8")


# A check that finds nothing proves nothing.


def test_a_missing_hint_or_section_is_noticed():
    text = "## Exercises\n\n1. **One.** Why?\n\n   no hint\n2. **Two.** How?\n\n## End\n3. **No.**"
    assert section(text, "Exercises").count("**") == 4
    assert not HINT.search(section(text, "Exercises"))
    assert section(text, "What to read next") == ""
