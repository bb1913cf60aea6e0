"""The possible transitions of a table as a sparse graph, for methods on networks of many states."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_array

from cai.infinite.endings import paying_transitions, possible_transitions
from cai.tables.finite import check_alike
from cai.tables.table import Table


@dataclass(frozen=True, eq=False)
class TransitionGraph:
    """The E transitions (s, a, s') of positive weight out of states that are not absorbing.

    Ordered by state, without forbidden actions, impossible successors and rewards of -inf. Several
    transitions may lead from one state to the same next one.

    Attributes:
        places: (E,), the index of each in the flattened arrays (S, A, K) of the table.
        tails: (E,), s, ascending.
        heads: (E,), s'.
        log_weights: (E,), nats: log p(a|s) + log p(s'|s,a) + (r + r⁺)/α.
        absorbing: (S,), boolean: the states of value 0, after which no reward can follow.
    """

    places: Any
    tails: Any
    heads: Any
    log_weights: Any
    absorbing: Any

    @property
    def num_states(self) -> int:
        """S."""
        return len(self.absorbing)

    def ending(self, absorbing: Any) -> TransitionGraph:
        """The same transitions with other absorbing states (S,) in addition to its own."""
        absorbing = self.absorbing | absorbing
        keep = ~absorbing[self.tails]
        return TransitionGraph(
            places=self.places[keep],
            tails=self.tails[keep],
            heads=self.heads[keep],
            log_weights=self.log_weights[keep],
            absorbing=absorbing,
        )

    def matrix(self, weights: Any, keep: Any = None) -> csr_array:
        """Weights (E,) as a sparse array (S, S), with an entry for each transition kept."""
        tails, heads = self.tails, self.heads
        if keep is not None:
            tails, heads, weights = tails[keep], heads[keep], weights[keep]
        S = self.num_states
        starts = np.zeros(S + 1, dtype=np.int32)
        np.cumsum(np.bincount(tails, minlength=S), out=starts[1:])
        return csr_array((weights, heads, starts), shape=(S, S))


def transition_graph(table: Table) -> TransitionGraph:
    """The possible transitions of a table.

    A state is absorbing here if every allowed action stays there with probability one and reward
    zero.
    """
    S = table.num_states
    check_alike(table, "transition graph")
    log_weights = table.log_weights.reshape(S, -1)
    heads = table.successor_index
    possible = possible_transitions(table)
    idle = paying_transitions(table).logical_not_()
    idle &= heads == torch.arange(S).unsqueeze(1)
    absorbing = (idle | ~possible).all(1)
    kept = (log_weights > -torch.inf) & ~absorbing.unsqueeze(1)
    places = kept.flatten().nonzero().squeeze(1)
    return TransitionGraph(
        places=places.numpy(),
        tails=(places // max(1, log_weights.shape[1])).int().numpy(),
        heads=heads.flatten()[places].int().numpy(),
        log_weights=log_weights.flatten()[places].numpy(),
        absorbing=absorbing.numpy(),
    )
