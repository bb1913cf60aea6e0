"""A generator of towns, to try methods on networks of any size."""

from __future__ import annotations

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from cai import checks
from cai.models.roads.streets_from_columns import streets_from_columns
from cai.roads.network import Streets

_BLOCK = 100.0  # m
_JITTER = 0.12  # of a block, by which crossings are off the grid
_ARTERIAL, _STREET = 50.0, 30.0  # km/h


def city(
    rows: int = 12,
    columns: int = 12,
    *,
    arterial_every: int = 4,
    one_way: float = 0.3,
    missing: float = 0.1,
    bridges: int | None = 3,
    seed: int = 0,
) -> Streets:
    """A generated town: a grid with arterials, one-way streets, gaps, and a river with bridges.

    Blocks are 100 m long, crossings a little off the grid. Arterials, among them all four sides of
    the grid, are driven both ways at 50 km/h, other streets at 30 km/h. The river flows
    from west to east, and can be crossed on bridges only, on arterials first. Of what these draws
    leave, the largest part from which every crossing can reach every other is returned; all
    arterials that are joined by bridges are in it. 50×50 crossings make some 7 500 segments.

    Args:
        rows: crossings from south to north, at least 4.
        columns: crossings from west to east, at least 2.
        arterial_every: every how many streets there is an arterial.
        one_way: the probability that a street other than an arterial has one direction only.
        missing: the probability that a block of such a street is missing.
        bridges: how many; None for no river.
        seed: the same seed makes the same town.

    Returns:
        The network, a :class:`cai.Streets`: nodes are named by their numbers on the grid, row by
        row from the south-west. Features of segments: "length" in m, "minutes", and "arterial" and
        "bridge", which are 0 or 1; of turns "angle", "left", "right" and "u_turn".

    Raises:
        ValueError: if a count or a probability is out of range.

    >>> from cai import models
    >>> streets = models.city(6, 6, seed=1)
    >>> sorted(streets.segment_features)
    ['arterial', 'bridge', 'length', 'minutes']
    >>> len(streets.dead_ends)
    0
    """
    checks.check_count("rows", rows, 4, "crossings from south to north")
    checks.check_count("columns", columns, 2, "crossings from west to east")
    checks.check_count("arterial_every", arterial_every)
    one_way = checks.check_probability("one_way", one_way)
    missing = checks.check_probability("missing", missing)
    if bridges is not None:
        checks.check_count("bridges", bridges, advice="None for a town without a river")
    checks.check_seed(seed)
    rng = np.random.default_rng(int(seed) % 2**64)
    tails, heads, arterials, crosses = [], [], [], []
    south = int(rng.integers(1, rows - 2))  # of the river, which leaves two rows on either side
    spared = _spared(rng, columns, arterial_every, bridges)
    number = np.arange(rows * columns).reshape(rows, columns)
    for lines, vertical in ((number, False), (number.T, True)):
        for k, line in enumerate(lines):
            arterial = _is_arterial(k, len(lines), arterial_every)
            one, other = line[:-1], line[1:]
            keep = arterial | (rng.random(len(one)) >= missing)
            wet = vertical & (one // columns == south) & (bridges is not None)
            keep = np.where(wet, k in spared, keep)
            both = arterial or rng.random() >= one_way
            forth = rng.random() < 0.5
            for drive, a, b in ((both or forth, one, other), (both or not forth, other, one)):
                n = int(keep.sum()) if drive else 0
                tails.append(a[keep][:n])
                heads.append(b[keep][:n])
                arterials.append(np.full(n, float(arterial)))
                crosses.append(wet[keep][:n].astype(float))
    tail, head, fast, bridge = map(np.concatenate, (tails, heads, arterials, crosses))
    places = _BLOCK * (np.stack(np.divmod(number.ravel(), columns)[::-1], -1).astype(float))
    places += rng.uniform(-_JITTER * _BLOCK, _JITTER * _BLOCK, places.shape)
    inside = _largest_part(tail, head, rows * columns)
    keep = inside[tail] & inside[head]
    tail, head, fast, bridge = tail[keep], head[keep], fast[keep], bridge[keep]
    length = np.hypot(*(places[head] - places[tail]).T)
    speed = np.where(fast > 0, _ARTERIAL, _STREET) / 60 * 1000  # m a minute
    return streets_from_columns(
        {
            "tail": tail,
            "head": head,
            "length": length,
            "minutes": length / speed,
            "arterial": fast,
            "bridge": bridge,
        },
        nodes={"node": number.ravel(), "x": places[:, 0], "y": places[:, 1]},
        degrees=False,
    )


def _is_arterial(k: int, count: int, every: int) -> bool:
    return k % every == 0 or k == count - 1


def _spared(rng: np.random.Generator, columns: int, every: int, bridges: int | None) -> set[int]:
    """The columns on which the river is bridged: arterials first."""
    drawn = rng.permutation(columns).tolist()
    drawn.sort(key=lambda k: not _is_arterial(k, columns, every))  # keeps the order of both kinds
    return set(drawn[:bridges])


def _largest_part(tail: np.ndarray, head: np.ndarray, count: int) -> np.ndarray:
    """(count,), whether a node is in the largest strongly connected part."""
    graph = coo_array((np.ones(len(tail)), (tail, head)), shape=(count, count))
    _, part = connected_components(graph.tocsr(), connection="strong")
    return np.asarray(part == np.bincount(part).argmax())
