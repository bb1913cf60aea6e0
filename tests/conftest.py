import signal

import hypothesis
import pyro
import pytest
import torch

torch.set_num_threads(1)
hypothesis.settings.register_profile("cai", deadline=None, database=None, max_examples=25)
hypothesis.settings.load_profile("cai")


@pytest.fixture(autouse=True)
def _fresh():
    """Every test starts from the same seed, an empty parameter store and float32 as default."""
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    torch.set_default_dtype(torch.float32)
    with pyro.validation_enabled():
        yield


@pytest.fixture
def heard():
    """Ctrl-C as a terminal has it: a process in the background may have been told to ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
