"""Saving and loading, and where two results differ."""

import dataclasses
import math

import numpy as np
import torch
from torch import nn

import cai


def back(x, folder):
    path = folder / "x.pt"
    cai.save(x, path)
    return cai.load(path)


def differences(one, other, where="it"):
    """Where two results differ, in whatever they hold but programs."""
    one, other = (x.item() if isinstance(x, np.generic) else x for x in (one, other))
    if type(one) is not type(other):
        return [f"{where}: {type(one).__name__} and {type(other).__name__}"]
    if isinstance(one, torch.Tensor):
        same = one.dtype == other.dtype and one.shape == other.shape
        same = same and bool(((one == other) | (one.isnan() & other.isnan())).all())
        same = same and one.requires_grad == other.requires_grad
        return [] if same else [where]
    if isinstance(one, nn.Module):
        state = one.state_dict()
        found = differences(dict(state), dict(other.state_dict()), where)
        parameters = [{k for k, _ in x.named_parameters()} for x in (one, other)]
        return found + ([] if parameters[0] == parameters[1] else [f"{where}: parameters"])
    if isinstance(one, torch.distributions.MultivariateNormal):
        return differences((one.loc, one.scale_tril), (other.loc, other.scale_tril), where)
    if isinstance(one, torch.distributions.Distribution):  # a flat prior
        return [] if one.event_shape == other.event_shape else [where]
    if isinstance(one, cai.Comparison):
        numbers = differences(one.to_dict(), other.to_dict(), where)
        return numbers + differences(one.posterior, other.posterior, f"{where}.posterior")
    if dataclasses.is_dataclass(one):
        names = [x.name for x in dataclasses.fields(one) if x.init and x.name != "program"]
        pairs = [(getattr(one, name), getattr(other, name), f"{where}.{name}") for name in names]
        return [line for pair in pairs for line in differences(*pair)]
    if isinstance(one, dict):
        if list(one) != list(other):
            return [f"{where}: {list(one)} and {list(other)}"]
        return [line for k in one for line in differences(one[k], other[k], f"{where}[{k!r}]")]
    if isinstance(one, tuple):
        if len(one) != len(other):
            return [where]
        pairs = zip(one, other, strict=True)
        return [
            line for k, pair in enumerate(pairs) for line in differences(*pair, f"{where}[{k}]")
        ]
    same = one == other or (isinstance(one, float) and math.isnan(one) and math.isnan(other))
    return [] if same else [f"{where}: {one!r} and {other!r}"]
