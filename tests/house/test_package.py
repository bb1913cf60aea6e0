"""What is built and installed: one package of one name, complete, in an environment of its own."""

import email
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import cai
from cai import inference, models

ROOT = Path(__file__).resolve().parents[2]
CONSTRAINTS = ROOT / os.environ.get("CAI_CONSTRAINTS", "constraints.txt")  # of this very run
LEFT_OUT = (".git", ".venv*", "build", "dist", "out", "*.egg-info", "__pycache__", ".*_cache")
LEFT_OUT += (".hypothesis", ".ipynb_checkpoints")
FOLDERS = {"cai": "cai", "models": "cai/models", "inference": "cai/inference"}


def run(*command, cwd):
    """A command's output, away from the checkout and from what would lead back to it."""
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=environment | {"OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, f"{command}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The folder of what is published: a source distribution, and the wheel that it makes.

    Built from a copy, which leaves no build folder in the checkout.
    """
    folder = tmp_path_factory.mktemp("built")
    shutil.copytree(ROOT, folder / "copy", ignore=shutil.ignore_patterns(*LEFT_OUT))
    build = (sys.executable, "-m", "build", "--no-isolation")
    run(*build, "--outdir", folder / "dist", folder / "copy", cwd=folder)
    return folder / "dist"


@pytest.fixture(scope="module")
def wheel(built):
    (file,) = built.glob("*.whl")
    return file


@pytest.fixture(scope="module")
def unpacked(built, tmp_path_factory):
    """The root of the source distribution, unpacked elsewhere."""
    folder = tmp_path_factory.mktemp("unpacked")
    (file,) = built.glob("*.tar.gz")
    with tarfile.open(file) as archive:
        archive.extractall(folder, filter="data")
    (root,) = folder.iterdir()
    return root


def names(wheel):
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


def metadata(wheel, name):
    with zipfile.ZipFile(wheel) as archive:
        (path,) = (path for path in archive.namelist() if path.endswith(f".dist-info/{name}"))
        return archive.read(path).decode()


def test_the_wheel_owns_one_name(wheel):
    """Folders called ``models`` and ``inference`` at the top would take these names from others."""
    top = {name.split("/")[0] for name in names(wheel)}
    assert {name for name in top if not name.endswith(".dist-info")} == {"cai"}
    assert metadata(wheel, "top_level.txt").split() == ["cai"]
    assert re.fullmatch(r"control_as_inference-[\d.]+-py3-none-any\.whl", wheel.name)


def test_the_wheel_is_complete(wheel):
    """Every source of the checkout is in it, and nothing else is."""
    expected = {"cai/py.typed"} | {
        f"{inside}/{path.relative_to(ROOT / folder).as_posix()}"
        for folder, inside in FOLDERS.items()
        for path in (ROOT / folder).rglob("*.py*")
        if path.suffix in (".py", ".pyi")
    }
    expected |= {
        f"cai/explorer/{path.name}"
        for path in (ROOT / "cai" / "explorer").iterdir()
        if path.suffix in (".css", ".html", ".js")
    }
    assert {name for name in names(wheel) if not re.match(r"[^/]+\.dist-info/", name)} == expected


def files(root):
    """Everything below a folder but for what is made there."""
    kept = []
    for folder, inner, names_here in os.walk(root):
        skip = shutil.ignore_patterns(*LEFT_OUT)(folder, [*inner, *names_here])
        inner[:] = [name for name in inner if name not in skip]
        kept += [Path(folder, name) for name in names_here if name not in skip]
    return {path.relative_to(root).as_posix() for path in kept}


def test_the_source_distribution_is_complete(unpacked):
    """Whatever lies in a checkout: the tests, the tutorials, the picture of README, …"""
    added = {"PKG-INFO", "setup.cfg"}  # its own, and one to which the metadata are added
    assert files(unpacked) - added == files(ROOT) - added
    assert {"tutorials/ledge.png", "constraints-lowest.txt", "CITATION.cff"} <= files(unpacked)


def test_the_tests_of_the_source_distribution_run_there(unpacked):
    """All of them are found, and those of its README pass."""
    pytest_ = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider")
    found = run(*pytest_, "--collect-only", "tests", cwd=unpacked)
    modules = {path.stem for path in (ROOT / "tests").rglob("test_*.py")}
    assert {
        Path(line.split("::")[0]).stem for line in found.splitlines() if "::" in line
    } == modules
    run(*pytest_, "tests/house/test_readme.py", "-k", "links or makefile", cwd=unpacked)


def test_the_metadata(wheel):
    about = email.message_from_string(metadata(wheel, "METADATA"))
    assert about["Name"] == "control-as-inference"
    assert (about["License-Expression"] or about["License"]) == "Apache-2.0"
    assert about["Requires-Python"] == ">=3.11"
    assert about["Description-Content-Type"] == "text/markdown"
    assert about.get_payload().strip() == (ROOT / "README.md").read_text(encoding="utf-8").strip()
    assert any("licenses/LICENSE" in name for name in names(wheel))
    for command in ("cai", "control-as-inference"):
        assert f"{command} = cai.__main__:main" in metadata(wheel, "entry_points.txt").splitlines()
    assert about["Version"] == cai.__version__


def test_every_requirement_has_a_tested_version(wheel):
    """What the package and its tests need is pinned, and so are the lower bounds of setup.cfg."""
    about = email.message_from_string(metadata(wheel, "METADATA"))
    required = {re.match(r"[\w.-]+", line)[0].lower() for line in about.get_all("Requires-Dist")}
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {line.partition("==")[0].lower() for line in lines if "==" in line}
    assert "torch" in required
    assert required <= pinned
    bound = re.compile(r"([\w.-]+)\s*>=\s*([\d.]+)\s*(;.*)?$")  # also those of extras
    bounds = [bound.match(x) for x in about.get_all("Requires-Dist")]
    lines = (ROOT / "constraints-lowest.txt").read_text(encoding="utf-8").splitlines()
    lowest = dict(line.split("==") for line in lines if "==" in line)
    declared = {found[1]: found[2] for found in bounds if found}
    assert declared.keys() == lowest.keys()
    for name, bound in declared.items():  # 1.12 allows 1.12.0 and nothing lower
        assert re.fullmatch(rf"{re.escape(bound)}(\.0)*", lowest[name]), name


INSPECT = """
import importlib, importlib.util, json, pkgutil, sys
import cai, cai.models, cai.inference
modules = [m.name for m in pkgutil.walk_packages(cai.__path__, "cai.") if m.name != "cai.__main__"]
for name in modules:
    importlib.import_module(name)
print(json.dumps({
    "files": [m.__file__ for m in (cai, cai.models, cai.inference)],
    "modules": sorted(modules),
    "strays": [n for n in ("models", "inference", "tests", "benchmarks")
               if importlib.util.find_spec(n)],
    "names": [cai.__all__, cai.models.__all__, cai.inference.__all__],
}))
"""


def test_an_installed_copy(wheel, tmp_path):
    """In an empty environment, with the dependencies that the wheel asks for and no others."""
    environment, elsewhere = tmp_path / "venv", tmp_path / "elsewhere"
    elsewhere.mkdir()
    run(sys.executable, "-m", "venv", environment, cwd=tmp_path)
    scripts = environment / ("Scripts" if os.name == "nt" else "bin")
    python = scripts / "python"
    install = (python, "-m", "pip", "install", "--quiet", "-c", CONSTRAINTS)
    run(*install, "torch", cwd=elsewhere)
    run(*install, wheel, cwd=elsewhere)
    run(python, "-m", "pip", "check", cwd=elsewhere)

    found = json.loads(run(python, "-c", INSPECT, cwd=elsewhere))
    home = Path(found["files"][0]).parent
    assert home.name == "cai"
    assert environment.resolve() in home.resolve().parents
    assert [Path(file) for file in found["files"]] == [
        home / "__init__.py",
        home / "models" / "__init__.py",
        home / "inference" / "__init__.py",
    ]
    assert (home / "py.typed").is_file()
    assert found["strays"] == []
    assert {"cai.models.discrete.ledge", "cai.inference.exact.posterior", "cai.plot"} <= set(
        found["modules"]
    )
    assert found["names"] == [cai.__all__, models.__all__, inference.__all__]

    table = run(scripts / "cai", "compare", "ledge", "--out", "out", cwd=elsewhere)
    exact = inference.posterior(models.ledge())
    assert f"log p(O) = {exact.log_evidence:.3f} nats" in table
    assert {path.name for path in (elsewhere / "out").iterdir()} >= {
        "comparison.json",
        "comparison.png",
    }
    assert [path.name for path in elsewhere.iterdir()] == ["out"]
    version = run(scripts / "control-as-inference", "--version", cwd=elsewhere)
    assert version == f"control-as-inference {cai.__version__}\n"

    command = [python, "-c", "from cai import inference"]
    within = subprocess.run(command, cwd=ROOT, capture_output=True, encoding="utf-8", check=False)
    assert within.returncode == 1
    assert "pip install -e ." in within.stderr.splitlines()[-1]
