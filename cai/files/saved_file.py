"""Results in files: written whole, with a format number, and read without running any code."""

from __future__ import annotations

import os
import zipfile
from functools import partial
from pathlib import Path
from typing import Any, NoReturn, TypeVar, overload

import torch
from torch import Tensor, nn

from cai import checks, installation
from cai.files.plain_values import PARAMETERS, Apart, NotPlain, Together, described
from cai.files.whole_file import check_path, path_of, remove_unfinished, write_whole

Module = TypeVar("Module", bound=nn.Module)

_FORMAT, _NUMBER = "cai.save", 1  # raise the number when files change, and go on reading old ones
_EXAMPLE = "posterior.pt"
_WRITTEN = "a file that cai.save wrote"


def save(thing: Any, path: str | os.PathLike[str]) -> None:
    """Saves a result in a file, from which :func:`load` makes it again.

    * A ``Table``, and a ``Solution``, ``StationarySolution``, ``CheckpointedSolution`` or
      ``GaussianSolution``, conditioned ones too.
    * ``TabularPolicy`` and ``LinearGaussianPolicy``. Of any other torch module its parameters,
      which are loaded into one like it.
    * An ``Evaluation``, ``Trajectories``, and a ``Comparison``: its rows, each with its policy as
      far as that is a table or a matrix.

    A file holds numbers, not programs: a table that is loaded has no ``program``. It is written
    beside its place and then renamed, so that there is never half a file.

    Args:
        thing: the result.
        path: the path of the file, which is replaced if it exists.

    Returns:
        None; the file is complete.

    Raises:
        ValueError: if it is none of these, or the file cannot be written.

    >>> import pathlib, tempfile, cai
    >>> from cai import inference, models
    >>> solution = inference.posterior(models.ledge())
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = pathlib.Path(folder, "posterior.pt")
    ...     cai.save(solution, file)
    ...     cai.load(file).V.equal(solution.V)
    True
    """
    file = check_path("path", path, _EXAMPLE)
    try:
        plain = Apart().of(thing)
        if not (isinstance(plain, dict) and plain["class"] != "mapping"):
            raise NotPlain(type(thing).__name__)
    except NotPlain as other:
        came = type(thing).__name__
        came += f", with a {other} in it" if str(other) != came else ""
        checks.refuse(
            "save",
            "a table, a solution of one or of a linear-Gaussian model, a policy, an evaluation, "
            "trajectories or a comparison",
            came,
            "save cai.tabulate(model) of a model, and .policy or .solution of a result",
        )
    content = {
        "format": _FORMAT,
        "number": _NUMBER,
        "version": installation.version(),
        "content": plain,
    }
    try:
        remove_unfinished(file)
        write_whole(file, partial(torch.save, content))
    except (OSError, RuntimeError) as error:  # torch's own, for a disk that is full
        words = " ".join(str(error).split())[:200]
        checks.refuse(f"path {file}", "room to write", words, "make some, or give another path")


@overload
def load(path: str | os.PathLike[str]) -> Any: ...


@overload
def load(path: str | os.PathLike[str], into: Module) -> Module: ...


def load(path: str | os.PathLike[str], into: nn.Module | None = None) -> Any:
    """The result in a file that :func:`save` wrote.

    Only tensors and plain values are read, so that a foreign file cannot run code. Whatever needs
    no program works as before: all numbers of a solution, its policy and samples, figures, and any
    exact method on its ``table``. What runs a program says that there is none: ``simulate``, and
    ``fit`` with a policy that must be simulated; build the model again for these.

    Numbers in the file are the same to the bit. Occupancies are computed again from the values, and
    agree up to rounding errors with those of a solution that has just been computed.

    Args:
        path: the path of the file.
        into: a policy, or any torch module, that takes the parameters in the file; of the same
            class and sizes as the one that was saved. Needed for networks alone.

    Returns:
        The result; with ``into`` that module, with the parameters of the file.

    Raises:
        ValueError: if the file is truncated or damaged, was written by something else or by a newer
            version of the library, or does not fit ``into``.

    >>> import pathlib, tempfile, cai
    >>> from cai import models
    >>> model = models.pendulum()
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = pathlib.Path(folder, "policy.pt")
    ...     cai.save(cai.NeuralPolicy(model), file)
    ...     policy = cai.load(file, into=cai.NeuralPolicy(model))
    """
    file = path_of("path", path, _EXAMPLE)
    content = _read(file)
    plain = content["content"]
    if not isinstance(plain, dict) or not isinstance(plain.get("class"), str):
        _refuse(file, _WRITTEN, "one whose content is no result")
    if into is not None:
        _fill(file, plain, into)
        return into
    if plain["class"] == PARAMETERS and "network" in plain:
        network = plain["network"]
        checks.refuse(
            f"load {file}",
            "into=, a policy that takes the parameters in the file",
            "none",
            f"build the {network} as it was, then cai.load(path, into=policy)",
        )
    try:
        return Together().of(plain)
    except Exception as error:  # what is wrong in it can be wrong in any way
        _refuse(file, _WRITTEN, f"one whose content does not fit ({_one_line(error)})")


def _read(file: Path) -> dict[str, Any]:
    """The content of a file, whose checksums and format are right."""
    if file.is_dir() or not file.exists():
        came = "a folder" if file.is_dir() else "no such file"
        _refuse(file, _WRITTEN, came)
    try:
        with zipfile.ZipFile(file) as archive:
            broken = archive.testzip()  # since torch ignores the checksums
        if broken is not None:
            raise zipfile.BadZipFile(broken)
    except PermissionError:
        _refuse(file, "a file that may be read", "no permission")
    except Exception as error:  # a damaged archive can be wrong in any way
        kind = type(error).__name__
        _refuse(file, _WRITTEN, f"one that is truncated, damaged or of another kind ({kind})")
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        _refuse(file, _WRITTEN, f"something else, which cannot be read ({type(error).__name__})")
    written = content.get("format") if isinstance(content, dict) else None
    if isinstance(written, str) and written.startswith("cai.inference."):
        verb = written.removeprefix("cai.inference.").partition(",")[0]
        came = f"a checkpoint of {verb}"
        _refuse(file, _WRITTEN, came, f"pass it to inference.{verb} as checkpoint=")
    number, version = (content.get(x) if isinstance(content, dict) else None for x in _HEAD)
    if written != _FORMAT or not isinstance(number, int) or "content" not in content:
        _refuse(file, _WRITTEN, "a file of something else")
    if number > _NUMBER:
        _refuse(
            file,
            f"a file of format {_NUMBER} or older, which version {installation.version()} reads",
            f"one of format {number}, written by version {version}",
            "install that version of the library, or a newer one",
        )
    found: dict[str, Any] = content
    return found


_HEAD = ("number", "version")


def _fill(file: Path, plain: Any, module: Any) -> None:
    """Gives a module the parameters of a file, all of them or none."""
    checks.check_kind("into", module, nn.Module, "a torch module", "for instance cai.NeuralPolicy")
    state = plain.get("state") if isinstance(plain, dict) else None
    if not isinstance(state, dict):
        advice = "leave into out"
        _refuse(file, f"the parameters of a {type(module).__name__}", described(plain), advice)
    written = plain.get("network", plain["class"])
    name = type(module).__name__
    if written != name:
        advice = f"build the {written} that was saved, and load the file into it"
        _refuse(file, f"the parameters of a {name}", f"those of a {written}", advice)
    held = {key: x for key, x in state.items() if x is not None}
    mine = module.state_dict()
    for key in [*mine, *held]:
        now, then = _shape(mine.get(key)), _shape(held.get(key))
        if now != then:
            advice = "build the policy with the arguments of the one that was saved"
            _refuse(file, f"{key} as {now}, as in the {name}", f"it as {then}", advice)
    for tensor in (*module.parameters(), *module.buffers()):
        tensor.data = tensor.data.contiguous()  # rows that share memory could not be written
    module.load_state_dict(held)


def _shape(x: Tensor | None) -> str:
    return "nothing" if x is None else f"{x.dtype} of shape {list(x.shape)}"


def _refuse(file: Path, expected: str, came: str, advice: str = "") -> NoReturn:
    checks.refuse(f"load {file}", expected, came, advice or "give the path that was passed to save")


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
