"""The tutorials: every notebook runs, and what it shows is what is committed."""

import re
import sys
from pathlib import Path

import nbformat
import pytest
import torch
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient

from cai.__main__ import main

TUTORIALS = Path(__file__).parents[2] / "tutorials"
NOTEBOOKS = [
    path for path in sorted(TUTORIALS.rglob("*.ipynb")) if ".ipynb_checkpoints" not in path.parts
]

CONSTRAINTS = (TUTORIALS.parent / "constraints.txt").read_text(encoding="utf-8")
PINNED = re.findall(r"^torch==([\d.]+)", CONSTRAINTS, re.MULTILINE)
# From one seed, other versions of torch draw other numbers.
DRAWS_AS_COMMITTED = torch.__version__.partition("+")[0] in PINNED

RELATIVE = 0.01  # of a printed number; a change of its last digit is allowed as well
LARGEST = 2**20  # bytes of a notebook

NUMBER = re.compile(r"(?<![\w.])([-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?)(?!\w)")
UNWANTED = {
    "a warning": r"Warning\b|\bwarnings?:",
    "a traceback": r"Traceback|\x1b\[",
    "a path of some machine": r"(?<![\w.:/])/(home|root|work|tmp|usr|opt|var|Users|private)/"
    r"|site-packages|\b[A-Z]:\\",
    "an address in memory": r"\b0x[0-9a-f]{6,}",
    "a progress bar": r"\d%\|",
}


class ThisInterpreter(AsyncKernelManager):
    """Starts kernels of the Python that runs the tests, whatever Jupyter knows as python3."""

    @property
    def kernel_spec(self):
        argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        return KernelSpec(argv=argv, language="python")


def read(path):
    return nbformat.read(path, as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def shown(cell):
    """What a reader sees of a cell: printed text, plain results, and that there is an image."""
    printed = {"stdout": "", "stderr": ""}  # a stream may arrive in any number of pieces
    results = []
    for output in cell.outputs:
        if output.output_type == "stream":
            printed[output.name] += output.text
        elif "image/png" in output.get("data", {}):
            results.append("an image")
        else:
            results.append(output.get("data", {}).get("text/plain", output.output_type))
    return [*printed.values(), *results]


def difference(fresh, committed, trained=False):
    """The first place where two texts differ by more than the tolerance, or None.

    Where a training led depends on rounding errors that differ between processors: of a cell with
    the tag "trained" the words are compared, and how many numbers there are.
    """
    ruled = re.compile(
        "[-·]{3,}" if trained else "(?!)"
    )  # lines in a table, as wide as its numbers
    fresh, committed = (
        NUMBER.split(" ".join(ruled.sub("", text).split())) for text in (fresh, committed)
    )
    for i, (new, old) in enumerate(zip(fresh, committed, strict=False)):
        if not (trained or close(new, old) if i % 2 else new == old):
            return f"{new!r} now, {old!r} committed"
    if len(fresh) != len(committed):
        return f"{len(fresh) // 2} numbers now, {len(committed) // 2} committed"
    return None


def close(new, old):
    """Whether two printed numbers agree; whole numbers must be the same."""
    if new.lstrip("-+").isdigit() or old.lstrip("-+").isdigit():
        return new == old
    mantissa, _, exponent = old.lower().partition("e")
    last_digit = 10.0 ** (int(exponent or 0) - len(mantissa.partition(".")[2]))
    return abs(float(new) - float(old)) <= 1.001 * last_digit + RELATIVE * abs(float(old))


def test_there_are_notebooks():
    assert NOTEBOOKS
    assert PINNED


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_committed_with_clean_outputs(path):
    notebook = read(path)
    nbformat.validate(notebook)
    cells = code_cells(notebook)
    counts = [cell.execution_count for cell in cells]
    assert counts == list(range(1, len(cells) + 1)), "not executed from top to bottom"
    assert any(cell.outputs for cell in cells), "committed without outputs"
    assert path.stat().st_size < LARGEST
    for cell in cells:
        for output in cell.outputs:
            assert output.output_type != "error", cell.source
            assert output.get("name") != "stderr", cell.source
            texts = [output.get("text", "")]
            texts += [x for kind, x in output.get("data", {}).items() if kind.startswith("text/")]
            for text in texts:
                for what, pattern in UNWANTED.items():
                    found = re.search(pattern, text)
                    assert not found, f"{what} in the output of\n{cell.source}\n\n{text}"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs_and_shows_what_is_committed(path, tmp_path, monkeypatch):
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))  # no profile or startup file of the user's
    monkeypatch.setenv("TQDM_DISABLE", "1")  # bars say how long it took
    fresh, committed = read(path), read(path)
    client = NotebookClient(
        fresh,
        timeout=300,
        kernel_name="python3",
        kernel_manager_class=ThisInterpreter,
        resources={"metadata": {"path": str(path.parent)}},
    )
    client.execute()
    for new, old in zip(code_cells(fresh), code_cells(committed), strict=True):
        assert len(shown(new)) == len(shown(old)), f"other outputs than committed:\n{new.source}"
        for now, before in zip(shown(new), shown(old), strict=True):
            trained = "trained" in old.metadata.get("tags", ())
            if "sampled" in old.metadata.get("tags", ()) and not DRAWS_AS_COMMITTED:
                continue
            problem = difference(now, before, trained)
            assert problem is None, f"{problem}, in the output of\n{new.source}\n\n{now}"


@pytest.mark.parametrize(
    ("new", "old", "same"),
    [
        ("ELBO -3.380 nats", "ELBO  -3.380 nats\n", True),
        ("ELBO -3.381 nats", "ELBO -3.380 nats", True),
        ("ELBO -3.480 nats", "ELBO -3.380 nats", False),
        ("x = -0.000", "x = 0.000", True),
        ("p = 1.43e-21", "p = 1.44e-21", True),
        ("p = 1.43e-21", "p = 1.43e-20", False),
        ("level 3", "level 4", False),
        ("ELBO 1.0", "ELBO 1.0 nats", False),
        ("ELBO 1.0", "ELBO 1.0 2.0", False),
        ("s_0 is home", "s_1 is home", False),
    ],
)
def test_outputs_are_compared_as_numbers(new, old, same):
    assert (difference(new, old) is None) == same


def test_of_what_was_trained_the_words_are_compared():
    assert difference("ELBO 0.96 ± 0.07", "ELBO 1.53 ± 0.08", trained=True) is None
    assert difference("ELBO 0.96 ± 0.07", "return 0.96 ± 0.07", trained=True)
    assert difference("ELBO 0.96", "ELBO 0.96 ± 0.07", trained=True)
    assert difference("----\nELBO 0.96", "-----\nELBO 11.96", trained=True) is None


def test_the_file_with_dynamics_of_ones_own_compares(tmp_path, capsys):
    file = TUTORIALS / "my_dynamics.py"
    arguments = ["compare", f"{file}:model", "--horizon", "4", "--out", str(tmp_path), "--quiet"]
    assert main(arguments) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    for method in ("exact posterior", "fixed dynamics", "SVI"):
        assert f"\n{method} " in captured.out
    names = {file.name for file in tmp_path.iterdir()}
    assert {"comparison.md", "comparison.json", "comparison.png", "policies.png"} <= names
