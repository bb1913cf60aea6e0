"""A model as a source of transitions, by its program or its table."""

from __future__ import annotations

from typing import Any, NoReturn, Protocol

import numpy as np
import torch
from torch import Tensor

from cai import checks
from cai.infinite.endings import never_paid
from cai.numerics.exclusive import exclusive, seeded
from cai.numerics.inverse_cdf import Rows
from cai.program.handlers import Draws, values
from cai.program.trajectories import check_nothing_follows, is_terminal
from cai.program.trajectory import TrajectoryModel
from cai.stepping.source import Transition
from cai.tables.table import Table
from cai.tables.tabulation import enumerable


class ModelSource:
    """n copies of a model, stepped side by side.

    The horizon of a model belongs to the problem: at T an episode terminates, with reward r_T. It
    also terminates in the model's terminal states, and, with an infinite horizon, where a table
    says that no reward can follow. With an infinite horizon it may be truncated after
    ``time_limit`` steps. The discount γ is left to the learner, or drawn.

    Args:
        model: the program.
        num_envs: n.
        time_limit: after how many steps an episode is truncated; None for never.
        terminates: whether episodes terminate with probability 1 - γ after each step. The learner
            must then not discount.

    Attributes:
        draws_from_torch: whether steps draw from torch's generator, or from one of their own.

    Raises:
        ValueError: if a number is out of range, or a time limit would hide the horizon.
    """

    def __init__(
        self,
        model: TrajectoryModel,
        num_envs: int,
        *,
        time_limit: int | None = None,
        terminates: bool = False,
    ) -> None:
        checks.check_model(model)
        checks.check_count("num_envs", num_envs)
        checks.check_flag("terminates", terminates)
        if time_limit is not None:
            checks.check_count("time_limit", time_limit)
            if model.horizon is not None:
                checks.refuse(
                    "time_limit",
                    "none beside a horizon, at which an episode of this problem terminates",
                    f"{time_limit}, and a horizon of {model.horizon}",
                    "dataclasses.replace(model, horizon=None, final_reward=None)",
                )
        self.model, self.num_envs = model, num_envs
        self.time_limit, self.terminates = time_limit, terminates
        self._last = model.horizon if time_limit is None else time_limit
        self._cuts = time_limit is not None
        self._survival = model.discount if terminates else 1.0
        table = enumerable(model)
        self._steps: _Steps
        if table is None or table.by_step:  # the program takes t, and the table would not
            self._steps = _ProgramSteps(model, num_envs)
        else:
            self._steps = _TableSteps(table)
        self.draws_from_torch = self._survival < 1 or isinstance(self._steps, _ProgramSteps)
        self.s = self._steps.start(num_envs)
        self.t = torch.zeros(num_envs, dtype=torch.long)
        self._latest = 0  # no copy is at a later step
        never = torch.zeros(num_envs, dtype=torch.bool)
        self._never, self._always = never, ~never

    restarts = ""

    def step(self, a: Tensor) -> Transition:
        """Takes one action in each copy; copies whose episode is over begin another one."""
        taken = self.advance(a)
        self.restart(taken.over)
        return taken

    def advance(self, a: Tensor) -> Transition:
        """Takes one action in each copy, without beginning new episodes."""
        s, t = self.s, self.t
        s_next, reward, ended = self._steps(s, t, a)
        cut, t_next = self._never, t + 1
        if self._survival < 1:
            ended = ended | (torch.rand(self.num_envs, dtype=torch.float64) >= self._survival)
        self._latest += 1
        if self._last is not None and self._last <= self._latest:  # some may be over and beyond
            self._latest = int(t_next.max())
            last = t_next == self._last
            if self._cuts:
                cut = last & ~ended
            else:
                if self.model.pays_at_end:
                    reward = reward + torch.where(last & ~ended, self._steps.final(s_next), 0.0)
                ended = ended | last
        self.s, self.t = s_next, t_next
        return Transition(s, t, a, reward, s_next, ended, cut, self._always)

    def again(self, taken: Transition) -> Transition:
        """The same step once more: another, independent, s' and what it pays.

        Where termination was drawn, or r_T was paid, it is drawn and paid anew.
        """
        before = self.s, self.t, self._latest
        self.s, self.t = taken.s, taken.t
        other = self.advance(taken.a)
        self.s, self.t, self._latest = before
        return other

    def restart(self, over: Tensor) -> None:
        """Begins another episode in the copies (n,) whose episode is over."""
        which = over.numpy().nonzero()[0]
        if len(which):
            s, t = self.s.numpy().copy(), self.t.numpy().copy()
            s[which], t[which] = self._steps.start(len(which)).numpy(), 0
            self.s, self.t = torch.from_numpy(s), torch.from_numpy(t)

    def state_dict(self) -> dict[str, Any]:
        """The states of the copies, and of the generator that a table draws from.

        A program draws from torch's generator.
        """
        return {"s": self.s, "t": self.t, "generator": self._steps.state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores the copies."""
        self.s, self.t = state["s"], state["t"]
        self._latest = int(self.t.max())
        self._steps.go_on_from(state["generator"])


class _Steps(Protocol):
    """One step of n copies: states, times and actions (n,) -> next states, rewards, ends."""

    def start(self, n: int) -> Tensor:
        """n draws from p(s_0)."""

    def __call__(self, s: Tensor, t: Tensor, a: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """s', r(s,a) + r⁺(s,a,s') in reward units, and whether no reward can follow."""

    def final(self, s: Tensor) -> Tensor:
        """r_T(s)."""

    def state(self) -> dict[str, Any] | None:
        """The state of its own generator, if it has one."""

    def go_on_from(self, state: dict[str, Any] | None) -> None:
        """Restores the generator."""


class _ProgramSteps:
    """One step of a program, for n states in one call."""

    def __init__(self, model: TrajectoryModel, n: int) -> None:
        self._model, self._goes_on = model, torch.zeros(n, dtype=torch.bool)
        self._checked = model.terminal is None

    def start(self, n: int) -> Tensor:
        return values("s_0", self._model.initial, torch.Size((n,)))

    def __call__(self, s: Tensor, t: Tensor, a: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        model, n = self._model, s.shape[:1]
        with exclusive(), torch.no_grad():
            s_next, reward = self._paid(s, t, a)
            if model.terminal is None:
                return s_next, reward, self._goes_on
            ended = is_terminal(model.terminal, s_next, n)
            if not self._checked and ended.any():
                self._check(s_next, t, a, ended)
        return s_next, reward, ended

    def _paid(self, s: Tensor, t: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
        model, n = self._model, s.shape[:1]
        with Draws(n[0]):
            s_next = values("s", model.transition(s, a, t), n)
        reward = model.rewards(s, a, t)
        if model.pays_on_arrival:
            reward = reward + model.paid_on_arrival(s, a, s_next, t)
        return s_next, reward if reward.shape == n else reward.expand(n)

    def _check(self, s: Tensor, t: Tensor, a: Tensor, ended: Tensor) -> None:
        """Takes one more step from the first terminal states that are seen."""
        with seeded(0):
            s_next, reward = self._paid(s, t, a)
        check_nothing_follows(ended, reward, is_terminal(self._model.terminal, s_next, s.shape[:1]))
        check_nothing_follows(ended, self._model.final_rewards(s), ended)
        self._checked = True

    def final(self, s: Tensor) -> Tensor:
        return self._model.final_rewards(s)

    def state(self) -> None:
        return None

    def go_on_from(self, state: dict[str, Any] | None) -> None:
        pass


class _TableSteps:
    """One step of a table, drawn by inverting the cumulative sums of its rows.

    In numpy, whose calls cost a third of those of torch where they are as small as this. Its
    generator is seeded from torch's.
    """

    def __init__(self, table: Table) -> None:
        self._start, self._rows = Rows(table.log_initial.exp()[None]), Rows(_rows(table))
        self._successors = table.successor_index.flatten().numpy()
        rewards = table.outcome_rewards.expand_as(table.log_dynamics)
        self._rewards = rewards.flatten().numpy()
        self._final, self._actions = table.final_reward, table.num_actions
        self._forbidden = (table.log_prior == -torch.inf).flatten().numpy()
        self._forbids = bool(self._forbidden.any())
        infinite = table.horizon is None
        ended = never_paid(table) if infinite else torch.zeros(table.num_states, dtype=torch.bool)
        self._ended = ended.numpy()
        self._generator = np.random.default_rng(int(torch.randint(2**62, ())))

    def start(self, n: int) -> Tensor:
        return torch.from_numpy(self._start.draw(np.zeros(n), self._generator.random(n)))

    def __call__(self, s: Tensor, t: Tensor, a: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        row = s.numpy() * self._actions + a.numpy()
        if self._forbids and self._forbidden.take(row).any():
            self._refuse(row[self._forbidden.take(row)][0])
        outcome = self._rows.draw(row, self._generator.random(len(row)))
        s_next = self._successors.take(outcome)
        found = s_next, self._rewards.take(outcome), self._ended.take(s_next)
        return tuple(map(torch.from_numpy, found))  # type: ignore[return-value]

    def _refuse(self, row: int) -> NoReturn:
        state, action = divmod(int(row), self._actions)
        came, advice = f"{action} in state {state}", "ask model.prior(s) what is allowed"
        checks.refuse("action", "one that action_prior allows", came, advice)

    def final(self, s: Tensor) -> Tensor:
        return self._final[s]

    def state(self) -> dict[str, Any]:
        return dict(self._generator.bit_generator.state)

    def go_on_from(self, state: dict[str, Any] | None) -> None:
        assert state is not None
        self._generator.bit_generator.state = state


def _rows(table: Table) -> Tensor:
    """p(s'|s,a), (S·A, K)."""
    return table.log_dynamics.exp().flatten(0, 1)
