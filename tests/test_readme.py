"""The README's code runs as it stands, and its numbers are the library's."""

import re
from pathlib import Path

import pytest

from cai import __main__ as command_line

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


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


def test_the_table_is_what_the_command_prints(tmp_path, capsys):
    (printed,) = blocks("text")
    (command,) = re.findall(r"`cai (compare FrozenLake-v1 [^`]*)`", README)
    assert command_line.main([*command.split(), "--out", str(tmp_path), "--quiet"]) == 0
    assert capsys.readouterr().out == printed


def test_links_and_pictures_exist():
    root = Path(__file__).parents[1]
    for target in re.findall(r"\]\(([^)]+)\)", README):
        if not target.startswith("http"):
            assert (root / target).is_file(), target
    for name in re.findall(r"(\d_\w+\.ipynb)", README):
        assert (root / "tutorials" / name).is_file(), name


@pytest.mark.parametrize("command", ["make demo", "make test", "make bench"])
def test_commands_are_in_the_makefile(command):
    makefile = (Path(__file__).parents[1] / "Makefile").read_text(encoding="utf-8")
    assert f"\n{command.split()[1]}:" in makefile
