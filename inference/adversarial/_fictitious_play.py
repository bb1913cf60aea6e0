"""The game of discriminator and generator on a table, with exact expectations."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import softplus

from cai import checks
from cai.inference.adversarial._discriminator import Plain, Structured, loss
from cai.inference.adversarial._occupancies import transitions, visits
from cai.inference.exact.soft_values import soft_values
from cai.tables.absorbing import absorbing
from cai.tables.table import Table

Signal: TypeAlias = Literal["log_odds", "log_d", "minus_log"]
Ends: TypeAlias = Literal["absorbing", "ignored"]

_FIRST, _FASTER, _SLOWER = 0.3, 1.3, 0.6  # shares of a best response
_ALIKE, _OPPOSITE = 0.3, -0.1  # cosines of directions one after the other
_ENOUGH = 1e-6  # of the total variation distance
_BACK = 40


@dataclass(frozen=True, eq=False)
class Game:
    """What both players know.

    Attributes:
        table: the problem.
        real: how often transitions are demonstrated, (T, S, A, K) or (S, A, K).
        signal: what the generator is paid of D.
        ends: whether absorbing states count.
        penalty: of the discriminator's parameters.
        rounds: at most.
    """

    table: Table
    real: Tensor
    signal: Signal
    ends: Ends
    penalty: float
    rounds: int

    def counted(self, moves: Tensor) -> Tensor:
        """The transitions that the discriminator sees.

        With absorbing states as any others, a trajectory has as many of them for both. Without,
        they are shares of transitions, as where batches of these are drawn from two memories.
        """
        if self.ends == "absorbing":
            return moves
        stays = absorbing(self.table).view(-1, 1, 1)
        found = torch.where(stays, 0.0, moves)
        return found * (self.real.sum() / found.sum())

    def paid(self, log_odds: Tensor, log_ratio: Tensor, share: float = 1.0) -> Table:
        """The generator's rewards, that of the discriminator and its own log-density.

        The generator pays α for each nat of log π/p. A reward of α log π/p of its past policy, and
        of the log-odds, makes a best response maximise the log-odds alone. A share of these makes
        it stay closer to the past policy.
        """
        signal = {
            "log_odds": lambda x: x,
            "log_d": lambda x: -softplus(-x),
            "minus_log": softplus,
        }[self.signal]
        table = self.table
        each = share * signal(log_odds) + log_ratio.unsqueeze(-1)
        each = torch.where((table.log_prior == -torch.inf).unsqueeze(-1), 0.0, each)
        if self.ends == "ignored":
            each = torch.where(absorbing(table).view(-1, 1, 1), 0.0, each)
        nothing = torch.zeros_like(table.log_prior)
        changes: dict[str, Any] = {"reward": nothing, "arrival_reward": table.temperature * each}
        if bool((each == each[..., :1]).all()):
            changes = {"reward": table.temperature * each[..., 0], "arrival_reward": None}
        return table.holding(program=None, **changes)

    @property
    def live(self) -> Tensor:
        """(S,), boolean: where trajectories are not over."""
        return ~absorbing(self.table)

    def length(self, taken: Tensor) -> float:
        """How many actions are taken before absorption, of visits (…, S, A)."""
        return float(taken[..., self.live, :].sum())


class FictitiousPlay:
    """Best responses of both players, the generator's mixed with those before.

    The generator is the mixture of all its best responses, each of which has the soft policy in the
    true dynamics. The mixture's visits are the means of theirs, and its policy π(a|s) is the ratio
    of visits. The discriminator's response is exact. The share of a new best response grows while
    directions are alike, and falls where they turn back: a damped fixed-point iteration, whose
    fixed points are those of the game.

    Args:
        game: what both know.
        discriminator: see :mod:`cai.inference.adversarial._discriminator`.
    """

    verb, outcome, restarts, policy = "adversarial_reward", "the latest", "", None

    def __init__(self, game: Game, discriminator: Structured | Plain) -> None:
        self.game, self.discriminator, self.total = game, discriminator, game.rounds
        table = game.table
        shape = table.log_prior.shape
        if table.horizon is not None:
            shape = torch.Size((table.steps, *shape[-2:]))
        self.log_policy = table.log_prior.expand(shape)
        self.response = self.log_policy
        self.taken = visits(table, self.log_policy)
        self.log_odds = torch.zeros_like(game.real)
        self.history: dict[str, list[float]] = {x: [] for x in _NAMES}
        self.share, self.done, self.converged = _FIRST, 0, False
        self._before = torch.zeros_like(self.taken)

    def over(self) -> bool:
        """Whether it converged, or no round is left."""
        return self.converged or self.done >= self.total

    def shown(self) -> str:
        """The latest record."""
        last = {x: self.history[x][-1] for x in _NAMES[:3]} if self.done else {}
        return ", ".join(f"{name} {x:.4f}" for name, x in last.items())

    def differs(self, kept: dict[str, Any]) -> str:
        """Nothing: the settings say all."""
        return ""

    @property
    def log_ratio(self) -> Tensor:
        """log π/p of the mixture, (T, S, A) or (S, A); 0 where an action is forbidden."""
        allowed = self.game.table.log_prior > -torch.inf
        found = self.log_policy - torch.where(allowed, self.game.table.log_prior, 0.0)
        return torch.where(allowed, found, 0.0)

    def step(self) -> None:
        """The discriminator's best response, and then the generator's.

        Raises:
            ValueError: if the discriminator's rewards have no values.
        """
        game = self.game
        held = None
        if isinstance(self.discriminator, Structured):
            held = {name: x.clone() for name, x in self.discriminator.state_dict().items()}
        self._discriminate()
        self.response, share = self._responded(held), self.share
        found = visits(game.table, self.response)
        direction = found - self.taken
        size = float(direction.norm() * self._before.norm())
        if size > 0:
            cosine = float((direction * self._before).sum()) / size
            if cosine > _ALIKE:
                share = min(_FASTER * share, 1.0)
            elif cosine < _OPPOSITE:
                share = _SLOWER * share
        self._before, self.share = direction, share
        self.taken = self.taken + share * direction
        self.log_policy = self._mixed()
        self.done += 1
        gap = 0.5 * float(direction.abs().sum()) / float(self.taken.sum())
        self.converged = gap < _ENOUGH

    def _discriminate(self) -> None:
        game = self.game
        real = game.counted(game.real)
        made = game.counted(transitions(game.table, self.taken))
        self.log_odds = self.discriminator.fit(real, made, self.log_ratio, game.penalty)
        D = self.log_odds.sigmoid()
        total = float(real.sum())
        found = (
            float(loss(self.log_odds, real, made)) / total,
            _mean(D, real),
            _mean(D, made),
            game.length(self.taken),
            0.5 * float((real - made).abs().sum()) / total,
        )
        for name, x in zip(_NAMES, found, strict=True):
            self.history[name].append(x)

    def _responded(self, before: dict[str, Tensor] | None) -> Tensor:
        """log π of the soft policy; back towards the parameters before where it has no values."""
        own = before is not None and self.game.signal == "log_odds"
        own = own and self.game.ends == "absorbing"
        discriminator: Any = self.discriminator
        after = {k: x.clone() for k, x in discriminator.state_dict().items()} if own else {}
        share = 1.0
        for _ in range(_BACK):
            try:
                with torch.no_grad(), np.errstate(all="ignore"):
                    if own:  # shaping changes no soft policy
                        return _soft(discriminator.reward())
                    return _soft(self.game.paid(self.log_odds, self.log_ratio, share))
            except ValueError:
                share /= 2
                if before is not None and own:
                    mixed = {k: torch.lerp(before[k], x, share) for k, x in after.items()}
                    discriminator.load_state_dict(mixed)
        expected, came = "rewards with values", "trajectories that gain by going on for ever"
        checks.refuse("problem", expected, came, "give it a horizon or a discount, or a penalty")

    def _mixed(self) -> Tensor:
        """log π of the mixture; the latest response where it never is."""
        here = self.taken.sum(-1, keepdim=True)
        share = (self.taken / here.clamp(min=1e-300)).log()
        return torch.where(here > 0, share, self.response)

    def state_dict(self) -> dict[str, Any]:
        """All that the next round depends on."""
        history = {k: torch.tensor(x, dtype=torch.float64) for k, x in self.history.items()}
        own = {name: getattr(self, name) for name in _HELD}
        if isinstance(self.discriminator, Structured):
            own["discriminator"] = self.discriminator.state_dict()
        return own | {"history": history, "before": self._before}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Puts the game where it was when the state was taken."""
        for name in _HELD:
            setattr(self, name, state[name])
        self.history = {k: x.tolist() for k, x in state["history"].items()}
        self._before = state["before"]
        if isinstance(self.discriminator, Structured):
            self.discriminator.load_state_dict(state["discriminator"])

    @property
    def reason(self) -> str:
        """Why it ended."""
        if self.converged:
            return "a further round would change nothing"
        if not self.over():
            return "it was interrupted; this is the latest"
        return f"{self.total} rounds were not enough"


_NAMES = ("loss", "on_demonstrations", "on_generator", "length", "distance")
_HELD = ("taken", "log_policy", "response", "log_odds", "share", "done", "converged")


def _soft(table: Table) -> Tensor:
    """log π, (T, S, A) or (S, A), of the soft policy in the true dynamics."""
    solved = soft_values(table)
    steps = slice(0, 1) if table.horizon is None else slice(0, table.steps)
    found = solved.log_policy(steps)
    return found[0] if table.horizon is None else found


def _mean(D: Tensor, moves: Tensor) -> float:
    total = float(moves.sum())
    return float(torch.where(moves > 0, D * moves, 0.0).sum()) / total if total else math.nan
