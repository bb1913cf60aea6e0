"""What a command prints, on streams of any encoding, and on streams that nobody takes."""

import contextlib
import io
import json
import os
import sys

import pytest
from matplotlib.figure import Figure

import cai
from cai import __main__ as command
from cai import inference, models, plot
from cai.cli import terminal
from cai.evaluation.spelling import spell


@pytest.mark.parametrize(
    ("text", "encoding", "expected"),
    [
        ("KL to p(τ|O)", "ascii", "KL to p(tau|O)"),
        ("KL to p(τ|O) ± –", "cp1252", "KL to p(tau|O) ± –"),  # it has the other two
        ("KL to p(τ|O) ± –", "utf-8", "KL to p(τ|O) ± –"),
        ("0 … 2^63 − 1", "ascii", "0 ... 2^63 - 1"),
        ("α ≥ 0, Σ ≤ ∞", "latin-1", "alpha >= 0, Sigma <= inf"),
        ("x² + r⁺", "ascii", "x2 + r+"),
        ("Rényi, ẋ", "ascii", "Renyi, x"),
        ("机", "ascii", "\\u673a"),
        ("\udcff", "utf-8", "\\udcff"),  # a name of a file that is no text
    ],
)
def test_what_an_encoding_lacks_is_spelt(text, encoding, expected):
    assert spell(text, encoding) == expected
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    with contextlib.redirect_stdout(stream), terminal.prepared():
        terminal.show(text)
    assert stream.buffer.getvalue().decode(encoding) == expected + "\n"
    assert stream.errors == "strict"  # as it was before


@pytest.mark.parametrize("model", [models.ledge(), models.pendulum(horizon=2)], ids=["table", "±"])
def test_columns_stay_in_line_where_symbols_are_spelt(model):
    """All lines of the table's body are as wide as its rule, in every encoding."""
    if model.horizon == 2:
        methods = {"prior": lambda t, s: model.prior(s, t)}
    else:
        methods = {"exact posterior": inference.posterior(model)}
    report = cai.compare(model, methods)
    for encoding in ("utf-8", "cp1252", "ascii"):
        text = report.to_text(encoding)
        text.encode(encoding)
        groups, titles, units, rule, row = text.splitlines()[:5]
        assert {len(groups), len(titles), len(units), len(row)} == {len(rule)}
    assert report.to_text() == str(report)


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "utf-16"])
def test_a_comparison_is_printed_in_any_encoding(encoding, tmp_path):
    out = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    err = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        arguments = ["compare", "lottery", "--horizon", "1", "--steps", "2"]
        assert command.main([*arguments, "--out", str(tmp_path / "τ")]) == 0
    err.flush()
    news = err.buffer.getvalue().decode(encoding)
    printed = out.buffer.getvalue().decode(encoding)
    assert f"p({spell('τ', encoding)}|O)" in printed
    assert f"wrote {tmp_path}{os.sep}{spell('τ', encoding)}" in news
    found = json.loads((tmp_path / "τ" / "comparison.json").read_text(encoding="utf-8"))
    assert f"log p(O) = {found['log_evidence']:.3f} nats" in printed


@pytest.mark.parametrize(
    "arguments", [["--help"], ["models"], ["compare", "ledge", "--seed", "²"], ["compare", "θ"]]
)
def test_whatever_is_printed_can_be_printed_in_ascii(arguments):
    streams = [io.TextIOWrapper(io.BytesIO(), encoding="ascii") for _ in range(2)]
    with contextlib.redirect_stdout(streams[0]), contextlib.redirect_stderr(streams[1]):
        try:
            status = command.main(arguments)
        except SystemExit as left:
            status = left.code
    assert status == (2 if "compare" in arguments else 0)
    for stream in streams:
        stream.flush()
    assert streams[status // 2].buffer.getvalue()


def test_a_reader_that_has_gone_ends_the_command_without_a_word(capsys):
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w", encoding="utf-8") as stream, contextlib.redirect_stdout(stream):
        assert command.main(["models"]) == 141  # 128 + SIGPIPE
    assert capsys.readouterr().err == ""


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device of Linux")
@pytest.mark.parametrize("arguments", [["models"], ["compare", "lottery", "--horizon", "1"]])
def test_a_full_disk_is_said_in_one_line(arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(inference, "fit", lambda model, policy, **_: FITTED)
    monkeypatch.setattr(plot, "losses", lambda *_: Figure())
    with open("/dev/full", "w", encoding="utf-8") as stream, contextlib.redirect_stdout(stream):
        assert command.main([*arguments, *["--quiet"] * ("compare" in arguments)]) == 1
    expected = "cai: error: standard output: No space left on device\n"
    assert capsys.readouterr().err == expected
    assert (tmp_path / "out" / "comparison.json").exists() == ("compare" in arguments)


FITTED = inference.soft_values(models.lottery(horizon=1))


def test_streams_that_are_closed(tmp_path, monkeypatch):
    """As with ``>&-`` in a shell: the files are written all the same, and status counts."""
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    assert command.main(["draw", "lottery", "--out", str(tmp_path)]) == 0
    assert command.main(["draw", "nothing", "--out", str(tmp_path)]) == 2
    assert (sys.stdout, sys.stderr) == (None, None)
    assert [path.name for path in tmp_path.iterdir()] == ["graphical_model.png"]


def test_news_that_nobody_takes_stop_nothing(tmp_path):
    reader, writer = os.pipe()
    os.close(reader)
    stream = open(writer, "w", encoding="utf-8")  # noqa: SIM115 (its end fails as well)
    with contextlib.redirect_stderr(stream):
        assert command.main(["draw", "lottery", "--out", str(tmp_path)]) == 0
    with contextlib.suppress(BrokenPipeError):
        stream.close()
    assert [path.name for path in tmp_path.iterdir()] == ["graphical_model.png"]


@pytest.mark.parametrize("closed", ["stdout", "stderr"])
def test_a_file_that_closes_a_stream(closed, tmp_path):
    """The result is missed, and that is said; news are not missed."""
    path = tmp_path / "closes.py"
    path.write_text(f"import sys\n\nsys.{closed}.close()\nmodel = 3\n", encoding="utf-8")
    streams = [io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2)]
    with contextlib.redirect_stdout(streams[0]), contextlib.redirect_stderr(streams[1]):
        assert command.main(["draw", str(path), "--out", str(tmp_path)]) == 2
        if closed == "stdout":
            assert command.main(["models"]) == 1
            assert "cai: error: standard output: " in streams[1].buffer.getvalue().decode()
