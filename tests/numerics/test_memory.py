"""What cannot fit into memory is refused with its size, and with what to take instead."""

import pyro.distributions as dist
import pytest
import torch

import cai
from cai import inference, models
from cai.numerics import memory
from cai.policies.history import check_size

STATES = 30_000


def dense(s, a):
    """p(s'|s,a) falls off with the distance: every state can follow."""
    away = (torch.arange(STATES) - s.unsqueeze(-1) - a.unsqueeze(-1)).abs()
    return dist.Categorical(logits=-away.double())


def listed(s, a):
    here = s.unsqueeze(-1) + torch.tensor([0, 1])
    return cai.SparseCategorical(torch.zeros(2), here.clamp(max=STATES - 1), STATES)


def walk(dynamics):
    return cai.TrajectoryModel(
        initial=dist.Categorical(torch.ones(STATES)),
        dynamics=dynamics,
        reward=lambda s, a: -a.double(),
        action_prior=dist.Categorical(torch.ones(2)),
        horizon=2,
    )


@pytest.mark.parametrize("method", [cai.tabulate, inference.posterior, inference.soft_values])
def test_a_dense_program_of_many_states_says_how_many_bytes(method, monkeypatch):
    monkeypatch.setattr(memory, "installed", lambda: 16e9)
    with pytest.raises(ValueError, match=r"cai\.SparseCategorical") as caught:
        method(walk(dense))
    message = str(caught.value)
    # Seven arrays of 30 000 x 2 x 30 000 numbers of eight bytes.
    assert "dynamics: expected what fits into the memory of 16 GB, got a table of 30000" in message
    assert "101 GB" in message
    assert "broadcast" not in message


def test_lists_of_as_many_states_are_taken():
    table = cai.tabulate(walk(listed))
    assert table.successors.shape == (STATES, 2, 2)
    assert table.log_dynamics[0].exp().tolist() == [[0.5, 0.5], [0.5, 0.5]]


@pytest.mark.parametrize("error", [MemoryError("Unable to allocate 3 bytes"), None])
def test_an_allocation_that_fails_is_no_matter_of_broadcasting(error):
    def greedy(s, a):
        if s.dim() < 2 or len(s) < STATES:
            return listed(s, a)
        if error is not None:
            raise error
        return dist.Delta(s + torch.empty(10**14, dtype=torch.float64).long()[0])

    with pytest.raises(
        ValueError, match=r"^dynamics: expected what fits into the memory"
    ) as caught:
        cai.tabulate(walk(greedy))
    assert ("3 bytes" if error else "800 TB") in str(caught.value)
    assert "broadcast" not in str(caught.value)


@pytest.mark.parametrize(
    ("T", "S", "A", "O", "fits"),
    [(100, 5, 2, 1, 21), (30, 48, 4, 48, 2), (20_000, 5, 2, 5, 6), (3, 1000, 200, 1000, 0)],
)
def test_histories_say_how_many_steps_would_fit(T, S, A, O, fits):  # noqa: E741
    expected = f"so a horizon of at most {fits}, got" if fits else "which a single step"
    with pytest.raises(ValueError, match=f"^horizon: expected at most 16777216 .*, {expected}"):
        check_size(T, S, A, O)
    if fits:
        check_size(fits, S, A, O)
        with pytest.raises(ValueError, match=r"^horizon"):
            check_size(fits + 1, S, A, O)


@pytest.mark.parametrize(
    "make", [cai.HistoryPolicy, lambda model: inference.belief_values(model, lambda s: s % 2)]
)
def test_policies_on_histories_say_so(make):
    with pytest.raises(ValueError, match=r"^horizon: .* so a horizon of at most \d+, got"):
        make(models.ledge(horizon=60))


def test_sizes_are_readable():
    assert memory.readable(800) == "800 bytes"
    assert memory.readable(14.4e9) == "14.4 GB"
    assert memory.installed() > 1e8
