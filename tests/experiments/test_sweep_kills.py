"""Sweeps that are killed: in a worker, in the parent, by Ctrl-C, at random moments."""

import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import time

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of Unix")

SCRIPT = """
    import os
    import pathlib
    import sys
    import time

    import torch
    from pyro.distributions import Categorical

    import cai
    from cai import inference, models

    HERE = pathlib.Path(__file__).parent
    GRID = {"temperature": [0.25, 0.5, 1.0], "gives_way": [0.1, 0.5]}


    def drawn(model, seed):
        (HERE / "pids" / str(os.getpid())).touch()
        time.sleep(0.05 + 0.1 * torch.rand(()).item())
        logits = torch.randn(model.horizon, 5, 2)
        return lambda t, s: Categorical(logits=logits[t, s])


    def fails(model):
        time.sleep(0.05)
        raise ValueError("always")


    METHODS = {"drawn": drawn, "posterior": inference.posterior, "fails": fails}

    if __name__ == "__main__":
        cai.sweep(
            models.ledge, GRID, METHODS, seeds=3, out=sys.argv[1], jobs=int(sys.argv[2]),
            progress="lines",
        )
"""
CELLS = 6 * 3 * 3


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """The script, and what it finds when nobody disturbs it."""
    pytest.importorskip("joblib")
    folder = tmp_path_factory.mktemp("study")
    (folder / "pids").mkdir()
    (folder / "script.py").write_text(textwrap.dedent(SCRIPT), encoding="utf-8")
    done = start(folder, "alone", 1)
    _, err = done.communicate(timeout=300)
    assert done.returncode == 0, err
    return folder, (folder / "alone" / "results.csv").read_bytes()


def start(folder, out, jobs):
    return subprocess.Popen(
        [sys.executable, str(folder / "script.py"), str(folder / out), str(jobs)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        start_new_session=True,
        # Whoever runs the tests in the background may have them ignore Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def lines(folder, out):
    path = folder / out / "results.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def wait_for(done, process, seconds=300):
    until = time.monotonic() + seconds
    while not done() and process.poll() is None and time.monotonic() < until:
        time.sleep(0.005)
    time.sleep(0.15 * random.random())


def whole(folder, out):
    """The cells in the file, all lines of which are whole or the last is cut off."""
    text = (folder / out / "results.jsonl").read_bytes()
    kept = text[: text.rfind(b"\n") + 1]
    return [json.loads(line) for line in kept.splitlines()][1:]


def finish(folder, out, jobs):
    process = start(folder, out, jobs)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return err


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("jobs", [1, 2])
def test_killed_in_the_parent_again_and_again(study, jobs):
    folder, expected = study
    out = f"parent{jobs}"
    for more in (random.randint(1, 8), random.randint(3, 15)):
        before = lines(folder, out)
        process = start(folder, out, jobs)
        wait_for(lambda n=before + more: lines(folder, out) >= n, process)
        assert process.poll() is None
        process.kill()
        process.communicate()
        cells = whole(folder, out)
        assert len({cell["key"] for cell in cells}) == len(cells) < CELLS
        assert not (folder / out / "results.csv").exists()
    finish(folder, out, 3 - jobs)  # with another number of processes
    assert (folder / out / "results.csv").read_bytes() == expected
    done = whole(folder, out)
    assert len(done) == CELLS  # nothing was done twice


def test_the_workers_of_a_killed_parent_end(study):
    folder, _ = study
    for old in (folder / "pids").iterdir():
        old.unlink()
    process = start(folder, "orphans", 2)
    wait_for(lambda: lines(folder, "orphans") > 3, process)
    process.kill()
    process.communicate()
    workers = [int(x.name) for x in (folder / "pids").iterdir()]
    assert workers
    until = time.monotonic() + 60
    while any(map(is_alive, workers)) and time.monotonic() < until:
        time.sleep(0.1)
    assert not any(map(is_alive, workers))


def test_killed_in_a_worker(study):
    """The sweep goes on with another, and does again what was lost."""
    folder, expected = study
    for old in (folder / "pids").iterdir():
        old.unlink()
    process = start(folder, "worker", 2)
    wait_for(lambda: lines(folder, "worker") > random.randint(2, 10), process)
    workers = [int(x.name) for x in (folder / "pids").iterdir()]
    os.kill(random.choice(workers), signal.SIGKILL)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert "a worker process has ended" in err
    assert (folder / "worker" / "results.csv").read_bytes() == expected


@pytest.mark.parametrize("jobs", [1, 2])
def test_ctrl_c_leaves_whole_lines_and_says_how_to_go_on(study, jobs):
    folder, expected = study
    out = f"interrupted{jobs}"
    process = start(folder, out, jobs)
    wait_for(lambda: lines(folder, out) > random.randint(2, 10), process)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all of them
    _, err = process.communicate(timeout=60)
    assert process.returncode in (-signal.SIGINT, 1)
    text = (folder / out / "results.jsonl").read_bytes()
    assert text.endswith(b"\n")
    n = text.count(b"\n") - 1
    assert f"interrupted after {n} of {CELLS} cells" in err
    assert "the same sweep goes on from there" in err
    assert f"goes on after {n} of {CELLS} cells" in finish(folder, out, jobs)
    assert (folder / out / "results.csv").read_bytes() == expected


FATAL = """
    import os
    import sys

    import cai


    def fatal(model, seed):
        if seed == 1:
            os._exit(9)
        return lambda t, s: model.prior(s, t)


    if __name__ == "__main__":
        found = cai.sweep(
            cai.models.ledge, {}, {"a": fatal}, seeds=4, jobs=2, out=sys.argv[1], progress=False
        )
        print([x.seconds is None for x in found], found.failed[0].error)
"""


def test_a_cell_that_ends_its_process_is_recorded_and_stops_no_other(tmp_path):
    """It is done again by the next call, which may find more memory."""
    pytest.importorskip("joblib")
    (tmp_path / "script.py").write_text(textwrap.dedent(FATAL), encoding="utf-8")
    for _ in range(2):
        process = start(tmp_path, "out", 2)
        said, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
        assert said.startswith("[False, True, False, False] WorkerDied: its process ended")
        assert "sweep:" not in err
    outcomes = [cell["outcome"] for cell in whole(tmp_path, "out")]
    assert sorted(outcomes) == ["done"] * 3 + ["killed"] * 2
