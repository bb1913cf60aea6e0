"""Maximum margin planning: demonstrations worth more than anything else, by a margin."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from cai import checks
from cai.demonstrations.demonstrations import Demonstrations
from cai.inference.apprenticeship.learned_reward import LearnedReward
from cai.inference.exact.soft_values import soft_values
from cai.inference.fitting import checkpoint_file
from cai.inference.fitting.loop import train
from cai.inference.margins._cutting_planes import CuttingPlanes, MarginTask
from cai.inference.margins._table_margins import TableMargins
from cai.inference.margins._trip_margins import TripMargins
from cai.inference.searches.search_file import SearchFile
from cai.numerics.exclusive import cached_property
from cai.program.interfaces import Policy
from cai.program.trajectory import TrajectoryModel
from cai.rewards.linear_reward import LinearReward
from cai.roads.network import Streets
from cai.tables.table import Table

_NOTHING = 1e-7  # of a weight, in units of the spread
_ZERO = (
    "All weights are zero: whatever is paid, policies that differ everywhere are as good as "
    "demonstrations. Add features"
)
_AVERAGES = '; examples="start" averages those that begin alike'


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class MaxMargin(LearnedReward):
    """A reward under which demonstrations are the best by a margin, but for their slacks.

    It prints as a table of ``weights``, with ``observed`` and ``expected`` features, and exports to
    a dict, JSON and Markdown; ``cai.compare`` takes it, but on a road network.
    ``history`` holds the objective at the weights of each round, infinite where going on for ever
    gained; ``expected`` the features of the best policies for the weights.

    Attributes:
        slack: the price C of a unit of slack.
        slacks: (n,), reward units: by how much each demonstration falls short of the margin.
        objective: ½ |ψ|² + C Σ slacks, with weights in units of the spread of their features.
        bound: below the minimum of that; where the search has converged, the same.

    >>> import cai
    >>> from cai import inference, models
    >>> model = models.ledge()
    >>> seen = cai.Demonstrations.from_paths([[0, 1, 2, 3, 3]], [[1, 1, 1, 0]])
    >>> reward = cai.LinearReward({"state": lambda s, a: s, "action": lambda s, a: a})
    >>> found = inference.max_margin(model, seen, reward, progress=False)
    >>> found.slacks.shape, found.converged
    (torch.Size([1]), True)
    """

    slack: float
    slacks: Tensor
    objective: float
    bound: float

    @cached_property
    def policy(self) -> Policy:
        """The best policy for the learnt reward, ties by the prior, (t, s) -> distribution.

        Raises:
            ValueError: on a road network, where each goal has another one.
        """
        return soft_values(self._one_model(), rule="hard").policy

    def to_dict(self) -> dict[str, Any]:
        """Weights, moments, slacks and the state of the search, as plain values."""
        own = {"slack": self.slack, "objective": self.objective, "bound": self.bound}
        finite = {name: x if math.isfinite(x) else None for name, x in own.items()}
        return super().to_dict() | finite | {"slacks": self.slacks.tolist()}

    def _notes(self) -> list[str]:
        short = int((self.slacks > 1e-6 * max(1.0, float(self.slacks.max()))).sum())
        said = (
            f"objective {self.objective:.6g}, at least {self.bound:.6g}; "
            f"{short} of {len(self.slacks)} demonstrations fall short of their margin."
        )
        return [said, *super()._notes()]


def max_margin(
    model: TrajectoryModel | Table | Streets,
    demonstrations: Demonstrations,
    reward: LinearReward | Sequence[str],
    *,
    slack: float = 1.0,
    loss: float | Tensor = 1.0,
    examples: Literal["each", "start"] | None = None,
    on_impossible: str = "error",
    steps: int = 200,
    checkpoint: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> MaxMargin:
    r"""The reward under which demonstrations beat every other policy by a margin.

    Maximum margin planning (Ratliff, Bagnell and Zinkevich 2006): the more a policy differs from a
    demonstration, the more it must be worth less,

        min  ½ Σ_k (spread_k ψ_k)² + C Σ_i ξ_i
        with  R_ψ(τ_i) ≥ R_ψ(π) + loss_i(π) - ξ_i   for every policy π from where τ_i begins,

    where R_ψ(π) is its expected sum of rewards, and the spread of a feature is its standard
    deviation over states and actions, so that units do not matter. The loss of a policy is the
    number of actions of the demonstration, less the expected number of actions that it takes in
    states in which the demonstration took them, too. So planning against a demonstration lowers
    the rewards of what was demonstrated, and raises none, which would let cycles gain.

    It is a convex problem, solved exactly by cutting planes: the hard Bellman recursion
    (:func:`soft_values` with ``rule="hard"``), on road networks shortest paths, finds the policy
    that is worst for each example; a quadratic program of all policies so far, by clarabel, finds
    the weights. It ends when no policy violates its constraint, at the minimum. With an infinite
    horizon and no discount, ways to go on for ever must not gain, which are constraints without a
    slack; on a road network no cycle at all may.

    A margin is no likelihood: the demonstrator is taken to be the best there is, up to slacks,
    weights have no errors, and doubling all rewards is not "more certain". Demonstrations that
    begin alike are averaged before they are compared: a single one that erred, or was lucky, is
    often matched by a policy that differs from it everywhere. Then no weights help, and all are
    zero, which is the minimum, and what ``examples="each"`` comes to where nobody is the best.

    Args:
        model: a model with finitely many states and actions, or its table, whose rewards are
            replaced, but for the final one; or a road network.
        demonstrations: of such states and actions; trips, for a road network.
        reward: a :class:`cai.LinearReward`; for a road network the names of its features.
        slack: the price C of a unit of slack of one demonstration; the larger, the less weights are
            held near zero.
        loss: what it is worth to take a demonstrated action, reward units: a number, or (S, A), on
            a road network (N,) for its turns.
        examples: "start" compares the average of the demonstrations that begin in the same state at
            the same step with all policies, the loss being their average, too; "each" compares
            every demonstration. None is "start", on a road network "each".
        on_impossible: "error" if a demonstration has a step of probability zero, or "drop" to leave
            such demonstrations out.
        steps: rounds, at most.
        checkpoint: path of a file that is written after each round, and resumed from if it exists.
        progress: whether to show a bar on a terminal.

    Returns:
        A :class:`MaxMargin`; after Ctrl-C the best there was.

    Raises:
        ValueError: if clarabel is not installed, an argument is not one of those, demonstrations do
            not fit the model or were cut off before their end, or going on for ever gains, whatever
            the weights are.

    >>> import cai
    >>> from cai import inference, models
    >>> town = models.streets_from_columns(
    ...     {"tail": list("oaabc"), "head": list("abccd"), "minutes": [1.0, 1.0, 2.5, 1.0, 1.0]}
    ... )
    >>> rows = {"trip": [0] * 4, "u": list("oabc"), "v": list("abcd")}
    >>> trips = town.demonstrations(rows, segment=("u", "v"))
    >>> found = inference.max_margin(town, trips, ["minutes"], slack=100.0, progress=False)
    >>> round(found.weights["minutes"], 4)  # half a minute must be worth three turns
    -6.0
    """
    checks.check_positive("slack", slack)
    if examples is not None:
        checks.check_one_of("examples", examples, ("each", "start"), 'take "start"')
    checks.check_count("steps", steps)
    checks.check_flag("progress", progress)
    task: MarginTask
    each = False
    if isinstance(model, Streets):
        if examples == "start":
            checks.refuse("examples", '"each" on a road network', repr(examples), "leave it out")
        task = TripMargins(model, demonstrations, reward, loss)
    else:
        each = examples == "each"
        task = TableMargins(model, demonstrations, reward, loss, not each, on_impossible)
    search = CuttingPlanes(task, float(slack), steps)
    file = None
    if checkpoint is not None:
        settings = {"slack": float(slack), **task.identity}
        file = SearchFile(checkpoint_file.check(checkpoint), settings, "max_margin")
    train(search, file, 1, progress)
    return _result(task, search, float(slack), each)


def _result(task: MarginTask, search: CuttingPlanes, slack: float, each: bool) -> MaxMargin:
    paid, model = task.paying(search.weights)
    nothing = search.converged and bool((search.weights.abs() * task.scale).max() < _NOTHING)
    return MaxMargin(
        reward=paid,
        model=model,
        method="maximum margin planning",
        converges_to="the minimum of ½ |spread ψ|² + C Σ slacks, which is unique in ψ",
        observed=task.taken.mean(0),
        expected=task.expected(search.weights),
        history=search.weights.new_tensor(search.history),
        history_name="objective",
        demonstrations=len(task.taken),
        actions=task.actions,
        steps=search.done,
        converged=search.converged,
        reason=search.why,
        remarks=(*task.remarks, f"{_ZERO}{_AVERAGES if each else ''}.")
        if nothing
        else task.remarks,
        slack=slack,
        slacks=search.slacks[task.owners],
        objective=search.objective,
        bound=search.bound,
    )
