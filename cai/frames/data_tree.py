"""Samples as data trees of ArviZ, with the dimensions chain and draw."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from cai.numerics.optional_package import optional

_AXES = {"states": "time", "actions": "step"}  # T+1 and T of them


def data_tree(
    posterior: Mapping[str, Tensor],
    stats: Mapping[str, Tensor],
    attrs: Mapping[str, Any],
    chains: int = 1,
) -> Any:
    """An ``xarray.DataTree`` of the groups "posterior" and "sample_stats".

    Args:
        posterior: name -> (n, …), chain after chain; the second axis of "states" is called time,
            that of "actions" step.
        stats: name -> (n,), of each draw.
        attrs: of the group "posterior", plain values.
        chains: how many chains there are.

    Raises:
        ValueError: if arviz-base is not installed.
    """
    advice = 'pip install "control-as-inference[arviz]"'
    arviz = optional("arviz_base", "to_arviz", advice)

    def by_chain(x: Tensor) -> Any:
        return x.detach().unflatten(0, (chains, -1)).numpy().copy()

    groups = {
        "posterior": {name: by_chain(x) for name, x in posterior.items()},
        "sample_stats": {name: by_chain(x) for name, x in stats.items()},
    }
    dims = {name: [axis] for name, axis in _AXES.items() if name in posterior}
    known = {name: x for name, x in attrs.items() if x is not None}
    return arviz.from_dict(groups, dims=dims, attrs={"posterior": known}, check_conventions=False)
