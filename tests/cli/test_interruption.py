"""Ctrl-C while the command is imported, and an import that cannot succeed."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import cai

ROOT = Path(cai.__file__).parent
PRESSES = "import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(60)\n"

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of Unix")


def start(*command, cwd, **variables):
    return subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=os.environ | variables,
        capture_output=True,
        encoding="utf-8",
        check=False,
        timeout=60,
        # Whoever runs the tests in the background may have them ignore Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


@pytest.mark.parametrize(
    "command",
    [
        [sys.executable, "-m", "cai", "models"],
        [sys.executable, "-u", "-m", "cai", "compare", "ledge"],
        [Path(sys.executable).parent / "cai", "draw", "ledge"],
        [Path(sys.executable).parent / "control-as-inference", "models"],
    ],
    ids=lambda command: " ".join(map(str, command)).replace(str(Path(sys.executable).parent), ""),
)
def test_ctrl_c_during_the_import_of_the_command(command, tmp_path):
    (tmp_path / "torch.py").write_text(PRESSES, encoding="utf-8")
    done = start(*command, cwd=tmp_path, PYTHONPATH=str(tmp_path))
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


@pytest.mark.parametrize(
    "arguments", [["-c", "from cai import Table"], ["cai.py"], ["-m", "mine", "cai"]]
)
def test_who_imports_the_library_is_interrupted_as_usual(arguments, tmp_path):
    (tmp_path / "torch.py").write_text(PRESSES, encoding="utf-8")
    (tmp_path / "mine.py").write_text("import cai\ncai.Table\n", encoding="utf-8")
    (tmp_path / "script").mkdir()
    script = "import sys; del sys.path[0]\nfrom cai import Table\n"
    (tmp_path / "script" / "cai.py").write_text(script, encoding="utf-8")
    where = tmp_path / "script" if arguments == ["cai.py"] else tmp_path
    done = start(sys.executable, *arguments, cwd=where, PYTHONPATH=str(tmp_path))
    assert done.returncode in (-signal.SIGINT, 1)
    assert "KeyboardInterrupt" in done.stderr


def test_the_command_itself_is_interrupted_by_an_exception():
    """Else it could not say that nothing was written, nor ``fit`` return the best so far."""
    code = (
        "import signal\n"
        "from cai.cli import interruption as it\n"
        "with it.ends_the_process():\n"
        "    print(signal.getsignal(signal.SIGINT) is it._leave)\n"
        "print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)\n"
    )
    done = start(sys.executable, "-c", code, cwd=ROOT)
    assert done.stdout.split() == ["True", "True"]


def test_who_calls_the_command_keeps_their_handler(tmp_path):
    """With arguments of its own it is a function of somebody's program, and may not end that."""
    (tmp_path / "torch.py").write_text(PRESSES, encoding="utf-8")
    code = "from cai.__main__ import main\nprint(main(['models']))\n"
    done = start(sys.executable, "-c", code, cwd=tmp_path, PYTHONPATH=str(tmp_path))
    assert (done.returncode, done.stdout) == (0, "130\n")
    assert "interrupted" in done.stderr


def test_a_folder_of_a_checkout_says_what_to_do(tmp_path):
    """Without the packages of the environment, -S, nothing maps cai.models to another folder."""
    (tmp_path / "cai").mkdir()
    for name in ("__init__.py", "installation.py"):
        shutil.copy(ROOT / name, tmp_path / "cai")
    done = start(sys.executable, "-S", "-c", "from cai import inference", cwd=tmp_path)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("ImportError: cai: ")
    for fragment in (str(tmp_path / "cai"), "pip install -e .", "another folder"):
        assert fragment in last
