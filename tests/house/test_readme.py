"""The README's code runs as it stands, and its numbers are the library's."""

import re
from pathlib import Path

import pytest

from cai import __main__ as command_line

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_example_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (code,) = blocks("python")
    assert len(code.splitlines()) < 40
    scope = {}
    exec(compile(code, "README.md", "exec"), scope)
    assert (tmp_path / "optimism.png").stat().st_size > 10_000
    assert str(scope["report"]) in capsys.readouterr().out
    report = scope["report"]
    assert report["exact posterior"].expected_return < report["fixed dynamics"].expected_return


NUMBER = re.compile(r"(?<![\w.])[-+]?\d+\.\d+(?!\w)")
EXACT = 1.001e-3  # one in the last digit printed: another machine may round the other way
# How far the ELBO of the training, whose optimum is flat, may end below the best, in nats; its
# entropy and its divergences are of its policy, where the same fall of the ELBO weighs its root.
TRAINED = 0.02


def test_the_table_is_what_the_command_prints(tmp_path, capsys):
    """Exact rows to the digits printed, but for one in the last; what was optimised, nearly."""
    (printed,) = blocks("text")
    (command,) = re.findall(r"`cai (compare FrozenLake-v1 [^`]*)`", README)
    assert command_line.main([*command.split(), "--out", str(tmp_path), "--quiet"]) == 0
    assert differences(capsys.readouterr().out, printed) == []


def differences(found, expected):
    """The lines of two tables whose words differ, or whose numbers do by more than allowed."""
    lines = list(zip(found.splitlines(), expected.splitlines(), strict=True))
    return [line for line, other in lines if not alike(line, other)]


def alike(line, other):
    words = [NUMBER.sub("#", text).split() for text in (line, other)]
    numbers = [[float(x) for x in NUMBER.findall(text)] for text in (line, other)]
    allowed = TRAINED if line.startswith("SVI") else EXACT
    return words[0] == words[1] and numbers[0] == pytest.approx(numbers[1], abs=allowed, rel=0)


@pytest.mark.parametrize(
    ("old", "new", "allowed"),
    [
        ("55.061   0.000   22.470", "55.071   0.000   22.461", True),  # of the training
        ("SVI              20.283", "SVI              20.273", True),
        ("SVI              20.283", "SVI              20.183", False),
        ("55.061   0.000", "54.961   0.000", False),
        ("log p(O) = 95.727", "log p(O) = 95.728", True),  # exact
        ("log p(O) = 95.727", "log p(O) = 95.729", False),
        ("92.805            –", "92.805        0.000", False),
        ("fixed dynamics", "best of all   ", False),
        ("(reward)", "(nats)  ", False),
    ],
)
def test_how_the_table_is_compared(old, new, allowed):
    (printed,) = blocks("text")
    assert old in printed
    assert (differences(printed.replace(old, new, 1), printed) == []) == allowed


def test_links_and_pictures_exist():
    root = Path(__file__).parents[2]
    for target in re.findall(r"\]\(([^)]+)\)", README):
        if not target.startswith("http"):
            assert (root / target).is_file(), target
    for name in re.findall(r"(\d_\w+\.ipynb)", README):
        assert (root / "tutorials" / name).is_file(), name


@pytest.mark.parametrize(
    "command",
    [f"make {x}" for x in ("demo", "notebooks", "test", "bench", "test-lowest", "dist", "docs")],
)
def test_commands_are_in_the_makefile(command):
    makefile = (Path(__file__).parents[2] / "Makefile").read_text(encoding="utf-8")
    assert f"\n{command.split()[1]}:" in makefile
