"""Every result and policy is saved, or refused by name."""

import os

import pytest
import test_pickling
import torch
from saving import back, differences
from torch import nn

import cai
from cai.files.plain_values import _KINDS


@pytest.mark.parametrize("name", test_pickling.POLICIES)
def test_a_policy_comes_back_to_the_bit(name, tmp_path):
    """A table or matrices by themselves, a network into one that is built alike."""
    make = test_pickling.POLICIES[name]
    model, policy = make()
    with torch.no_grad():
        for x in policy.parameters():
            x.add_(torch.randn(x.shape, dtype=x.dtype))
    path = tmp_path / "policy.pt"
    cai.save(policy, path)
    if type(policy).__name__ in _KINDS:
        found = cai.load(path)
    else:
        with pytest.raises(ValueError, match=f"build the {type(policy).__name__} as it was"):
            cai.load(path)
        torch.manual_seed(99)
        built = make()[1]
        found = cai.load(path, into=built)
        assert found is built
    assert differences(policy, found) == []
    if not any(x in name for x in ("Noise", "History", "Recurrent", "Latent", "Gaussian")):
        s = model.initial.sample((3,))
        a = policy(0, s).sample()  # which the transforms of this one remember
        assert policy(0, s).log_prob(a).equal(found(0, s).log_prob(a))


@pytest.mark.parametrize("name", test_pickling.RESULTS)
def test_every_result_is_saved_or_refused_by_name(name, tmp_path):
    made = test_pickling.RESULTS[name]()
    if type(made).__name__ in _KINDS:
        assert differences(made, back(made, tmp_path)) in (
            [],
            ["it.model: TrajectoryModel and Table"],
        )
        return
    if isinstance(made, nn.Module):
        return
    with pytest.raises(ValueError, match=f"save: expected a table.*, got {type(made).__name__}"):
        cai.save(made, tmp_path / "x.pt")
    assert os.listdir(tmp_path) == []
