"""The belief in several named models after each step of a trajectory."""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from cai import checks
from cai.evaluation.spelling import PrintedTable, counted, number
from cai.frames.data_frame import data_frame
from cai.numerics.exclusive import cached_property

_SHOWN = 12  # rows of the table


@dataclass(frozen=True, eq=False, repr=False)
class Intent(PrintedTable):
    """What is believed of M named models after each step of n trajectories, each by itself.

    It prints as a table, and exports to HTML (in a notebook), a dict, JSON, Markdown and pandas.

    Attributes:
        names: M names.
        prior: (M,), their probabilities before anything was seen.
        log_likelihoods: (n, L+1, M), nats: log p(the first 0 … L steps|model, s_0). After the end
            of a trajectory the last ones are repeated. -inf from the start on is a model that
            wants what cannot be had from there.
        lengths: (n,), the number of steps that were seen of each.
        likelihood: "paths" or "actions", what is scored of a step.

    >>> import torch, cai
    >>> from cai import inference
    >>> belief = inference.Intent(
    ...     names=("left", "right"),
    ...     prior=torch.tensor([0.5, 0.5]).double(),
    ...     log_likelihoods=torch.tensor([[[1.0, 1.0], [0.2, 0.6]]]).double().log(),
    ...     lengths=torch.tensor([1]),
    ... )
    >>> belief.probability
    tensor([[[0.5000, 0.5000],
             [0.2500, 0.7500]]], dtype=torch.float64)
    >>> belief.log_evidence.exp()
    tensor([[1.0000, 0.4000]], dtype=torch.float64)
    """

    headings: ClassVar[tuple[str, ...]] = ("", "prior", "posterior", "log-likelihood")

    names: tuple[Hashable, ...]
    prior: Tensor
    log_likelihoods: Tensor
    lengths: Tensor
    likelihood: str = "paths"

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, which: int) -> Intent:
        """The belief about one of the trajectories."""
        if not checks.within(which, lambda i: i.is_integer() and -len(self) <= i < len(self)):
            expected = f"a number of one of {len(self)} trajectories"
            checks.refuse("belief[…]", expected, repr(which), "they are numbered from 0")
        i = range(len(self))[int(which)]
        L = int(self.lengths[i])
        seen = self.log_likelihoods[i : i + 1, : L + 1]
        return replace(self, log_likelihoods=seen, lengths=self.lengths[i : i + 1])

    @cached_property
    def probability(self) -> Tensor:
        """(n, L+1, M): p(model|first t steps); after the end of a trajectory as at its end."""
        return self._joint.softmax(-1)

    @cached_property
    def log_evidence(self) -> Tensor:
        """(n, L+1), nats: log p(first t steps|s_0) = log Σ_m p(m) p(first t steps|m, s_0)."""
        return self._joint.logsumexp(-1)

    @property
    def final(self) -> Tensor:
        """(n, M): the belief after all that was seen of each trajectory."""
        return self.probability[:, -1]

    @cached_property
    def pooled(self) -> Tensor:
        """(M,): the belief if one and the same model made all n trajectories."""
        log_p = self.prior.log() + self.log_likelihoods[:, -1].sum(0)
        if log_p.max() == -torch.inf:
            advice = "take each by itself, .final"
            expected = "a model under which all trajectories are possible"
            checks.refuse("pooled", expected, "none", advice)
        return log_p.softmax(0)

    def marginal(self, *places: int) -> Intent:
        """The belief in a part of the names, which are tuples.

        Models whose names agree there are put together, weighted by their priors.

        Args:
            places: which parts of a name to keep, 0 the first; if several, names are tuples again.

        Returns:
            Another :class:`Intent`.

        Raises:
            ValueError: if names are not tuples that are long enough.

        >>> import torch, cai
        >>> from cai import inference
        >>> names = tuple((goal, alpha) for goal in ("home", "work") for alpha in (0.1, 1.0))
        >>> seen = torch.tensor([[[1.0, 1.0, 1.0, 1.0], [0.8, 0.4, 0.0, 0.3]]]).double().log()
        >>> prior = torch.full((4,), 0.25).double()
        >>> belief = inference.Intent(names, prior, seen, torch.tensor([1]))
        >>> belief.marginal(0).names, belief.marginal(0).final
        (('home', 'work'), tensor([[0.8000, 0.2000]], dtype=torch.float64))
        """
        tuples = [x if isinstance(x, tuple) else () for x in self.names]
        least = min(map(len, tuples))
        fits = [checks.within(k, lambda i: i.is_integer() and 0 <= i < least) for k in places]
        if not places or not all(fits):
            came = f"{list(places)} for names such as {self.names[0]!r}"
            advice = 'name models by tuples such as ("home", 0.5)'
            checks.refuse("places", "numbers of parts of all names", came, advice)
        kept = [int(k) for k in places]
        parts = [tuple(x[k] for k in kept) if len(kept) > 1 else x[kept[0]] for x in tuples]
        number_of: dict[Hashable, int] = {}
        of = torch.tensor([number_of.setdefault(x, len(number_of)) for x in parts])
        prior = self.prior.new_zeros(len(number_of)).index_add(0, of, self.prior)
        mine = of == torch.arange(len(number_of)).unsqueeze(1)
        # The shares of models within a part; of a part without a prior, equal ones.
        share = torch.where(prior[of] > 0, self.prior / prior[of], 1 / mine.sum(1)[of])
        log_share = torch.where(mine, share.log(), -torch.inf)
        joint = self.log_likelihoods.unsqueeze(-2) + log_share
        found = joint.logsumexp(-1)
        return replace(self, names=tuple(number_of), prior=prior, log_likelihoods=found)

    def to_dict(self) -> dict[str, Any]:
        """The belief after each step of each trajectory, and all else, as plain values."""
        seen = [L + 1 for L in self.lengths.tolist()]
        beliefs, evidence = self.probability.tolist(), self.log_evidence.tolist()
        return {
            "names": [str(name) for name in self.names],
            "likelihood": self.likelihood,
            "prior": self.prior.tolist(),
            "probability": [x[:L] for x, L in zip(beliefs, seen, strict=True)],
            "log_evidence": [x[:L] for x, L in zip(evidence, seen, strict=True)],
        }

    def to_dataframe(self) -> Any:
        """A pandas DataFrame of beliefs: "trajectory", "step", and a column for each name, as text.

        Raises:
            ValueError: if pandas is not installed.
        """
        seen = torch.arange(self.probability.shape[1]) <= self.lengths.unsqueeze(1)
        beliefs = self.probability[seen].T.tolist()
        columns = dict(zip(("trajectory", "step"), seen.nonzero().T.tolist(), strict=True))
        return data_frame(columns | dict(zip(map(str, self.names), beliefs, strict=True)))

    @property
    def _joint(self) -> Tensor:
        return self.prior.log() + self.log_likelihoods

    @cached_property
    def _mean(self) -> Tensor:
        """(M,), the mean of the final beliefs."""
        return self.final.mean(0)

    def _title(self) -> str:
        if len(self) == 1:
            return f"Belief after {counted(int(self.lengths[0]), 'step')}"
        steps = int(self.lengths.sum())
        return f"Mean belief after {len(self)} trajectories, each by itself, {steps} steps in all"

    def _cells(self) -> list[list[str]]:
        prior, mean = self.prior.tolist(), self._mean.tolist()
        total = self.log_likelihoods[:, -1].sum(0).tolist()
        return [
            [str(self.names[m]), number(prior[m]), number(mean[m]), _nats(total[m])]
            for m in self._order[:_SHOWN]
        ]

    @property
    def _order(self) -> list[int]:
        """All names as they are, or of many the most probable first."""
        many = len(self.names) > _SHOWN
        order = self._mean.argsort(descending=True, stable=True)
        return order.tolist() if many else list(range(len(self.names)))

    def _notes(self) -> list[str]:
        what = "actions and next states" if self.likelihood == "paths" else "actions"
        evidence = float(self.log_evidence[:, -1].sum())
        notes = [f"log evidence {evidence:.3f} nats, of {what}, given where each began."]
        if left := self._order[_SHOWN:]:
            rest = float(self._mean[left].sum())
            notes.append(f"{len(left)} other names have {number(rest)} together.")
        if len(self) > 1 and self._of_one:
            best = self.pooled.argmax()
            p = number(float(self.pooled[best]))
            notes.append(f"If they are all of one model it is {self.names[best]}: {p}.")
        return notes

    @property
    def _of_one(self) -> bool:
        """Whether one model may have made all trajectories."""
        log_p = self.prior.log() + self.log_likelihoods[:, -1].sum(0)
        return bool(log_p.max() > -math.inf)


def _nats(x: float) -> str:
    return "impossible" if x == -math.inf else number(x)
