"""Marginals of sites by name, alone or together with their neighbours in time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from cai import sites
from cai.sites import Site

if TYPE_CHECKING:
    from cai.solution import Solution


def marginal(solution: Solution, names: tuple[str, ...]) -> Tensor:
    """The joint distribution of sites of one step, as ``Solution.marginal`` documents it."""
    found = [sites.parse("marginal", name, solution.table) for name in names]
    if len(found) == 1 and found[0].kind == "alive":
        alive = solution.states[found[0].t].sum().clamp(max=1)
        return torch.stack([1 - alive, alive])
    t = _step(found, names)
    if found == [Site("s", t)]:
        return solution.states[t].clone()
    axes = [Site("s", t), Site("a", t), Site("s", t + 1)]
    joint = (
        solution.states[t].unsqueeze(-1) * solution.piece(slice(t, t + 1)).policy.log_probs[0].exp()
    )
    if axes[2] in found:
        joint = joint.unsqueeze(-1) * solution.dynamics(t)
    else:
        axes.pop()
    summed = [i for i, site in enumerate(axes) if site not in found]
    kept = [site for site in axes if site in found]
    joint = joint.sum(summed) if summed else joint
    return joint.permute([kept.index(site) for site in found])


def _step(found: list[Site], names: tuple[str, ...]) -> int:
    """The t of sites that are among s_t, a_t and s_{t+1}, each named once."""
    times = [site.t - (site.kind == "s") for site in found if site.kind in "sa"]
    t = min((site.t for site in found), default=-1)
    step = {Site("s", t), Site("a", t), Site("s", t + 1)}
    if not times or len(set(found)) < len(found) or not set(found) <= step:
        raise ValueError(
            "marginal: expected one site, or several of the sites s_t, a_t and s_{t+1} of one step "
            f"t, each named once, got {', '.join(map(repr, names)) or 'none'}; for sites further "
            "apart condition on one of them, inference.posterior(model, observed={...})"
        )
    return t
