"""What the data leave open at a maximum, and the covariance of what they determine."""

from __future__ import annotations

import torch
from torch import Tensor

from cai import checks
from cai.inference.scoring.fisher_scoring import Maximum, directions, largest

_SEEN = 1e-6  # the share of a direction in one weight from which on it counts


def undetermined(found: Maximum, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Changes of the weights that are not identified, and those that have no maximum, (k, j)."""
    *_, never = directions(found.first, scale, 0.0)
    *_, now = directions(information(found), scale, largest(found.first, scale))
    if now.shape[1] <= never.shape[1]:
        return never, now[:, :0]
    both, before = (x * scale.unsqueeze(1) for x in (now, never))  # orthonormal
    vectors, sizes, _ = torch.linalg.svd(both - before @ (before.T @ both), full_matrices=False)
    return never, vectors[:, sizes > 0.5] / scale.unsqueeze(1)


def check_determined(found: Maximum, scale: Tensor, names: tuple[str, ...]) -> None:
    """Raises ValueError, naming a combination of weights that data and prior leave open."""
    unidentified, separated = undetermined(found, scale)
    for changes, what in (
        (unidentified, "which the data do not determine"),
        (separated, "whose likelihood grows for ever"),
    ):
        for combination in named(changes, names):
            came = f"one as good as flat, for {_spelt(combination)}, {what}"
            advice = "take Normal(0.0, 3.0) perhaps, or leave a feature out"
            checks.refuse("prior", "one that says something where the data do not", came, advice)


def information(found: Maximum) -> Tensor:
    """(k, k), that of demonstrations and of the prior."""
    return found.scored.information + found.prior


def named(changes: Tensor, names: tuple[str, ...]) -> tuple[dict[str, float], ...]:
    """Changes of the weights in reduced form, their largest entry one, small ones left out."""
    if not changes.shape[1]:
        return ()
    rows = _reduced(changes.T)
    return tuple(
        {name: x for name, x in zip(names, row, strict=True) if abs(x) > _SEEN}
        for row in rows.tolist()
    )


def _reduced(rows: Tensor) -> Tensor:
    """A basis of the same rows, in which each has a name of its own (Gauss and Jordan)."""
    rows = rows.clone()
    for i in range(len(rows)):
        row, column = divmod(int(rows[i:].abs().argmax()), rows.shape[1])
        rows[[i, i + row]] = rows[[i + row, i]]
        rows[i] = rows[i] / rows[i, column]
        others = torch.arange(len(rows)) != i
        rows[others] -= rows[others, column : column + 1] * rows[i]
    return rows


def covariance(found: Maximum, scale: Tensor, groups: Tensor | None, sandwich: bool) -> Tensor:
    """(k, k); NaN for weights that the data do not determine.

    Args:
        found: the maximum.
        scale: (k,), units of the weights.
        groups: (n,), the group of each demonstration, for errors by groups; or None.
        sandwich: whether scores of demonstrations take the place of the information.
    """
    most = largest(found.first, scale)
    values, vectors, none = directions(information(found), scale, most)
    inverse = (vectors / values) @ vectors.T
    if groups is not None or sandwich:
        scores = found.scored.scores
        if groups is not None:
            sums = scores.new_zeros(int(groups.max()) + 1, scores.shape[1])
            scores = sums.index_add(0, groups, scores)
        inverse = inverse @ (scores.T @ scores) @ inverse
        if len(scores) < 2:  # whose sum is zero at the maximum, which is no sign of certainty
            inverse = torch.full_like(inverse, torch.nan)
    open_ended = (none * scale.unsqueeze(1)).abs().gt(_SEEN).any(1)
    unknown = open_ended | open_ended.unsqueeze(1)
    return torch.where(unknown, torch.nan, inverse)


def _spelt(combination: dict[str, float]) -> str:
    return " ".join(f"{x:+.3g} {name}" for name, x in combination.items())
