"""Methods on a grid of models with several seeds, whose results survive a kill."""

from __future__ import annotations

import operator
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from cai import checks
from cai.experiments import grid as grids
from cai.experiments.cells import DONE, FAILED, KILLED, Cell, Study, line
from cai.experiments.result_lines import ResultLines
from cai.experiments.sweep_progress import BAR, LINES, SweepProgress
from cai.experiments.sweep_result import SweepResult, cell_of
from cai.files.whole_file import write_whole
from cai.parallel import WorkerDied, check_engine, check_sendable, each

_FUNCTIONS = "factory or methods"
RESULTS, TABLE, FIGURE = "results.jsonl", "results.csv", "sweep.png"


def sweep(
    factory: Callable[..., Any],
    grid: Mapping[str, Iterable[grids.Plain]],
    methods: Mapping[str, Callable[..., Any]],
    *,
    seeds: int | Iterable[int] = 1,
    out: str | os.PathLike[str] | None = None,
    jobs: int | None = 1,
    engine: str | None = None,
    retry: bool = False,
    progress: bool | str = True,
) -> SweepResult:
    """Compares methods on every model of a grid, with every seed, and goes on where it was.

    A cell is one method on one model with one seed: its row is that of :func:`cai.compare`. With
    ``out`` each cell is a line of ``results.jsonl`` there as soon as it is done, on the disk before
    the next; at the end ``results.csv`` and ``sweep.png`` are written. The same call goes on with
    the cells that are not done, after a kill, too; with more values, methods or seeds it does those
    as well. A method that raises an error is written with that error and stops no other.

    Numbers do not depend on the number of processes, on their order or on the engine: each cell
    starts from generators of its own seed, an empty parameter store of Pyro, and one thread of
    torch. A sweep is known by the modules and names of the factory and of its methods, and by what
    ``functools.partial``, a dataclass, an object or a closure gives them; a lambda also by its
    code. After a change of other code choose another folder.

    Args:
        factory: makes the model, or its table, of the arguments of a point of the grid.
        grid: argument of the factory -> its values: numbers, texts, True, False or None.
        methods: name -> function from the model to a solution, a fit or a policy; it is also given
            the seed if it has an argument ``seed``.
        seeds: how many, from 0 on, or which.
        out: the folder of its files, which is made if there is none; None for no files.
        jobs: how many cells at once; above 1 in processes of their own, by joblib, to which the
            functions are sent by cloudpickle. None is as many as there are processor cores.
        engine: the name of a backend of joblib, such as "dask" or "ray"; None for processes of its
            own, or for what ``joblib.parallel_config`` has set.
        retry: whether cells that failed are done again; those whose process was killed always are.
        progress: whether to show a bar on a terminal; "lines" for lines of text elsewhere.

    Returns:
        A :class:`cai.SweepResult`, in the order of the grid, the methods and the seeds.

    Raises:
        ValueError: if an argument is wrong, if joblib or the engine is not installed, if functions
            cannot be sent to other processes, if with ``out`` no plain values tell a function from
            others, or if the folder holds the results of another sweep.
        KeyboardInterrupt: on Ctrl-C; what is done is kept.

    >>> import cai
    >>> from cai import inference, models
    >>> methods = {"posterior": inference.posterior, "fixed dynamics": inference.soft_values}
    >>> found = cai.sweep(models.ledge, {"temperature": [0.5, 1.0]}, methods)
    >>> [round(cell.row["elbo"], 2) for cell in found if cell.method == "posterior"]
    [-8.47, -3.96]
    """
    study = Study(_factory(factory), _methods(methods))
    axes, numbers = grids.axes_of(grid), _seeds(seeds)
    grids.check_arguments(factory, axes)
    checks.check_flag("retry", retry)
    if not isinstance(progress, bool) and progress != LINES:
        checks.refuse("progress", f'True, False or "{LINES}"', repr(progress), "True is a bar")
    shown = LINES if progress == LINES else BAR if progress else None
    check_engine(jobs, engine)
    check_sendable(_FUNCTIONS, study, jobs, engine)
    if out is not None:
        study.check()
    folder = None if out is None else _folder(out)
    points = grids.points(axes)
    cells = [
        study.cell(p, name, seed) for p in points for name in study.methods for seed in numbers
    ]
    head = {"factory": study.identity["factory"], "axes": sorted(axes)}
    with ResultLines(None if folder is None else folder / RESULTS, head) as lines:
        lines.refuse_others({cell.key for cell in cells})
        over = {DONE} if retry else {DONE, FAILED}
        todo = [x for x in cells if lines.found.get(x.key, {}).get("outcome") not in over]
        with SweepProgress(len(cells), len(cells) - len(todo), shown) as bar:
            try:
                for finished in _finished(study, todo, jobs, engine, bar):
                    lines.append(finished)
                    bar.update()
                found = tuple(cell_of(cell, lines.found[cell.key]) for cell in cells)
                result = SweepResult(axes, tuple(study.methods), numbers, found)
                if folder is not None:
                    _write(folder, result, bar)
            except KeyboardInterrupt:
                raise KeyboardInterrupt(_interrupted(cells, lines, folder)) from None
    return result


def _finished(
    study: Study, todo: list[Cell], jobs: int | None, engine: str | None, bar: SweepProgress
) -> Iterator[dict[str, Any]]:
    """The lines of cells as they end.

    If a process dies it took one of the cells with it that were being worked on: these are done
    again one by one, and one that ends its process again is given up.
    """
    left = {cell.key: cell for cell in todo}
    suspects: list[Cell] = []
    while left or suspects:
        alone = bool(suspects)
        batch = [suspects.pop(0)] if alone else list(left.values())
        # Even one cell alone, in a process that may die.
        workers = max(jobs, 2) if jobs is not None and alone else jobs
        try:
            for finished in each(study.run, batch, workers, engine):
                left.pop(finished["key"], None)
                yield finished
        except WorkerDied as death:
            if alone:
                words = "its process ended before it was done, twice; perhaps it was out of memory"
                yield line(batch[0], KILLED, error=f"WorkerDied: {words}")
            else:
                suspects = list(left.values())[: death.suspects]
                bar.say(f"sweep: {death}; those that were being worked on are done again")
                for cell in suspects:
                    del left[cell.key]


def _interrupted(cells: list[Cell], lines: ResultLines, folder: Path | None) -> str:
    """What Ctrl-C leaves, in words."""
    done = sum(cell.key in lines.found for cell in cells)
    kept = "nothing was kept, as there is no out"
    if folder is not None:
        kept = f"{folder / RESULTS} holds them, and the same sweep goes on from there"
    return f"interrupted after {done} of {len(cells)} cells; {kept}"


def _write(folder: Path, result: SweepResult, bar: SweepProgress) -> None:
    """The table and the figure, each of which takes the place of an earlier one at once."""
    table = result.to_csv().encode()
    write_whole(folder / TABLE, lambda file: file.write(table))
    try:
        if len(result.failed) == len(result):
            raise ValueError("every cell failed")
        figure = result.figure()
    except ValueError as error:
        bar.say(f"sweep: no {FIGURE}: {error}")
        (folder / FIGURE).unlink(missing_ok=True)  # of a smaller grid
        return
    write_whole(folder / FIGURE, lambda file: figure.savefig(file, format="png", dpi=150))


def _factory(value: Any) -> Callable[..., Any]:
    came, advice = type(value).__name__, "for instance models.ledge"
    steps = hasattr(value, "simulate") or hasattr(value, "log_dynamics")
    a_model = steps and hasattr(value, "horizon") and not isinstance(value, type)
    if a_model:
        came = f"a model ({came}), which has no arguments"
        advice = "pass a function that makes one, such as models.ledge, not models.ledge()"
    if a_model or not callable(value):
        checks.refuse("factory", "a function that makes a model", came, advice)
    function: Callable[..., Any] = value
    return function


def _method(name: str, value: Any) -> Callable[..., Any]:
    if not callable(value):
        advice = "pass inference.posterior, for instance, not its result inference.posterior(model)"
        where = f"methods[{name!r}]"
        checks.refuse(where, "a function of the model", type(value).__name__, advice)
    function: Callable[..., Any] = value
    return function


def _methods(methods: Any) -> dict[str, Callable[..., Any]]:
    if not isinstance(methods, Mapping) or not methods:
        came = "none" if isinstance(methods, Mapping) else type(methods).__name__
        advice = 'for instance {"posterior": inference.posterior}'
        checks.refuse("methods", "at least one, as {name: function of a model}", came, advice)
    for name in methods:
        checks.check_kind("methods", name, str, "names as texts", "such as posterior")
        if not name.strip():
            checks.refuse("methods", "names as texts", repr(name), "such as posterior")
    return {name: _method(name, method) for name, method in methods.items()}


def _seeds(seeds: Any) -> tuple[int, ...]:
    advice = "5 is 0, 1, 2, 3, 4; or list them"
    number = _whole(seeds)
    if number is not None:
        checks.check_count("seeds", number, advice=advice)
        return tuple(range(number))
    found = checks.several("seeds", seeds, advice, "a number of seeds, or several seeds")
    numbers = []
    for seed in found:
        number = _whole(seed)
        if number is None or not 0 <= number < 2**32:
            checks.refuse("seeds", "whole numbers in 0 … 2**32 - 1", repr(seed), advice)
        numbers.append(number)
    if not numbers or len(set(numbers)) < len(numbers):
        came = "one twice" if numbers else "none"
        checks.refuse("seeds", "at least one, each once", came, advice)
    return tuple(numbers)


def _whole(value: Any) -> int | None:
    """A whole number of any package as an int; None for all else, flags among it."""
    kind = str(getattr(value, "dtype", type(value).__name__))
    if "bool" in kind or getattr(value, "shape", ()) != ():
        return None
    try:
        return operator.index(value)
    except TypeError:
        return None


def _folder(out: Any) -> Path:
    """The folder of the files, which is made if there is none."""
    advice = 'for instance "out/sweep"'
    if not isinstance(out, str | os.PathLike):
        checks.refuse("out", "the path of a folder", repr(out), advice)
    try:
        folder = Path(out)
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError, TypeError) as error:  # it is a file, or below one, or not allowed
        words = getattr(error, "strerror", None) or str(error)
        checks.refuse("out", "a folder, or where one can be made", f"{out!r}: {words}", advice)
    return folder
