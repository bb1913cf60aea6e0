"""What is saved comes back to the bit, and nothing else than what was saved is ever loaded."""

import contextlib
import dataclasses
import math
import os
import pickle
import random
import stat
import zipfile

import numpy as np
import oracles
import pyro.distributions as dist
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from saving import back, differences
from torch import nn

import cai
from cai import inference, models, plot
from cai.files import saved_file, whole_file


def listed():
    """Lists of successors, arrival rewards and a discount."""
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(3), size=(300, 2))
    to = (np.arange(300)[:, None, None] + np.array([[0, 7, 21], [1, 5, 90]])) % 300
    return models.tabular(
        p, rng.normal(size=(300, 2)), horizon=3, successors=to, arrival_reward=p, discount=0.9
    )


TABLES = {
    "dense": lambda: cai.tabulate(models.ledge()),
    "with a map": lambda: cai.tabulate(models.gridworld("bridge", horizon=4, wind=0.2)),
    "of lists": lambda: cai.tabulate(listed()),
    "by step": lambda: cai.tabulate(oracles.random_steps(0).model()),
    "float32": lambda: cai.tabulate(models.ledge()).float32(),
    "without end": lambda: cai.tabulate(models.ledge(horizon=None, discount=0.9)),
    "a view": lambda: cai.tabulate(oracles.random_steps(1).model()).at(slice(1, 3)),
    "with names": lambda: cai.tabulate(models.road_network([0, 0, 1], [1, 2, 2], -1.0, goals=2)),
}


@pytest.mark.parametrize("name", TABLES)
def test_a_table_comes_back_to_the_bit(name, tmp_path):
    table = TABLES[name]()
    found = back(table, tmp_path)
    assert differences(table, found) == []
    assert found.program is None
    assert found.by_step == table.by_step


def test_what_is_learnt_is_saved_without_its_graph(tmp_path):
    table = TABLES["dense"]()
    table = dataclasses.replace(
        table,
        reward=table.reward.clone().requires_grad_(),
        temperature=torch.tensor(0.5, dtype=torch.float64, requires_grad=True),
    )
    assert differences(table.detached(), back(table, tmp_path)) == []


def test_only_what_a_view_shows_is_written(tmp_path):
    """And what solutions share is written once."""
    long = cai.tabulate(oracles.random_steps(2, T=50).model())
    for name, x in (("whole", long), ("view", long.at(slice(3, 5)))):
        cai.save(x, tmp_path / name)
    assert os.path.getsize(tmp_path / "view") < os.path.getsize(tmp_path / "whole") / 3
    table = TABLES["of lists"]()
    solutions = {f"{eta}": inference.soft_values(table, eta) for eta in (0.0, 0.5, 1.0)}
    report = cai.compare(table, solutions)
    found = back(report, tmp_path)
    assert len({id(row.method.table) for row in found.rows.values()}) == 1
    assert found.model is found.table is found.rows["0.0"].method.table


ETAS = (-math.inf, -1.0, 0.0, 0.5, 1.0, 3.0, math.inf)
SOLUTIONS = {
    **{f"at {eta}": lambda eta=eta: inference.soft_values(models.ledge(), eta) for eta in ETAS},
    **{
        f"by the rule {rule}": lambda r=rule: inference.soft_values(models.ledge(), 0.0, r)
        for rule in ("hard", "boltzmann", "planned")
    },
    "of lists": lambda: inference.posterior(listed()),
    "by step": lambda: inference.soft_values(oracles.random_steps(0).model(), 0.5),
    "conditioned": lambda: inference.posterior(
        models.ledge(), observed={"s_1": 1}, optimal=[True, False, True, True, True]
    ),
    "long": lambda: inference.soft_values(models.ledge(horizon=100), 0.5, recompute=True),
    "without end": lambda: inference.soft_values(models.ledge(horizon=None, discount=0.9), 0.5),
    "Boltzmann without end": lambda: inference.soft_values(
        models.ledge(horizon=None, discount=0.9), 0.0, "boltzmann"
    ),
}
FIELDS = ("V", "Q", "initial", "bound", "log_values", "imagined_return", "states", "state_actions")
FIELDS += ("visits", "tilt_start", "tilt_dynamics", "entropy")


@pytest.mark.parametrize("name", SOLUTIONS)
def test_a_solution_comes_back_to_the_bit(name, tmp_path):
    """In a fresh pickle, too, a solution has forgotten what its sweep had kept for the next one."""
    solution = SOLUTIONS[name]()
    found = back(solution, tmp_path)
    assert differences(solution, found) == []
    again = pickle.loads(pickle.dumps(solution))
    for field in FIELDS:
        if hasattr(again, field):
            assert differences(getattr(again, field), getattr(found, field), field) == []
    if not isinstance(solution, cai.CheckpointedSolution):
        assert solution.policy.log_probs.equal(found.policy.log_probs)
        assert solution.dynamics(0).equal(found.dynamics(0))


def test_a_loaded_solution_answers_all_that_needs_no_program(tmp_path):
    model = models.gridworld("bridge", horizon=6)
    solution = inference.posterior(model)
    found = back(solution, tmp_path)
    assert found.marginal("s_2", "a_3").equal(solution.marginal("s_2", "a_3"))
    assert found.sample(5, seed=1).states.equal(solution.sample(5, seed=1).states)
    assert cai.evaluate(found.table, found.policy).elbo == cai.evaluate(model, solution.policy).elbo
    report = cai.compare(found.table, {"loaded": found, "best": inference.soft_values(found.table)})
    assert report.rows["loaded"].kl_dynamics > 0
    assert plot.occupancy(report) is not None
    assert inference.optimism_curve(found.table, [0.0, 1.0]).bound[1] == solution.bound
    assert inference.map_trajectory(found.table).states.shape == (7,)
    step = back(solution.at(2), tmp_path)
    assert differences(solution.at(2), step) == []


PROGRAMS = {
    "importance": lambda model, table, policy: inference.importance(table, policy),
    "smc": lambda model, table, policy: inference.smc(table),
    "evaluate": lambda model, table, policy: cai.evaluate(table, policy, samples=10),
    "simulate": lambda model, table, policy: cai.evaluate(table, cai.RecurrentPolicy(model)),
    "fit": lambda model, table, policy: inference.fit(
        table, cai.TabularPolicy(model), estimator="score", progress=False
    ),
    "fit with a memory": lambda model, table, policy: inference.fit(
        table, cai.RecurrentPolicy(model), progress=False
    ),
    "collapse": lambda model, table, policy: cai.collapse(table),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_what_needs_a_program_says_so_in_one_message(name, tmp_path):
    model = models.ledge()
    found = back(inference.posterior(model), tmp_path)
    with pytest.raises(ValueError, match=r"program|the model") as error:
        PROGRAMS[name](model, found.table, found.policy)
    assert len(str(error.value)) < 1000
    assert "\n" not in str(error.value)


def test_latents_of_a_program_are_in_no_file(tmp_path):
    model, latent = models.ledge(), "t0/gives_way"
    assert inference.posterior(model).marginal(latent).sum() > 0
    with pytest.raises(ValueError, match=r"without a program: made by hand.*or loaded"):
        back(inference.posterior(model), tmp_path).marginal(latent)


def line():
    return models.linear_gaussian(
        [[1.0]],
        [[1.0]],
        horizon=3,
        noise=[[0.1]],
        Q=[[1.0]],
        R=[[1.0]],
        action_prior=dist.MultivariateNormal(torch.zeros(1), torch.eye(1)),
    )


GAUSSIAN = {
    "prior": lambda: inference.posterior(line()),
    "conditioned": lambda: inference.posterior(line(), observed={"s_3": [1.0]}),
    "flat": lambda: inference.soft_values(
        models.linear_gaussian([[1.0]], [[1.0]], horizon=3, R=[[1.0]], noise=[[0.1]]), 0.5
    ),
    "without end": lambda: inference.soft_values(
        models.linear_gaussian([[0.5]], [[1.0]], horizon=None, R=[[1.0]], Q=[[1.0]])
    ),
}


@pytest.mark.parametrize("name", GAUSSIAN)
def test_a_gaussian_solution_comes_back_with_its_model(name, tmp_path):
    """Whose matrices are all that its program consists of."""
    solution = GAUSSIAN[name]()
    found = back(solution, tmp_path)
    assert differences(solution, found) == []
    assert found.states.mean.equal(solution.states.mean)
    if name == "prior":
        paths = (x.model.simulate(x.policy, 5, seed=0) for x in (solution, found))
        one, other = (x.states for x in paths)
        assert one.equal(other)


def test_a_trained_policy_goes_on_training(tmp_path):
    model = models.ledge()
    policy = inference.fit(model, cai.TabularPolicy(model), steps=20, progress=False).policy
    found = back(policy, tmp_path)
    one, other = (inference.fit(model, x, steps=20, progress=False) for x in (policy, found))
    assert one.losses.equal(other.losses)


def network(width=4, dtype=torch.float32):
    return cai.NeuralPolicy(models.ledge(), hidden=(width,)).to(dtype)


def test_parameters_go_into_a_module_like_the_one_that_was_saved_alone(tmp_path):
    path = tmp_path / "policy.pt"
    cai.save(network(), path)
    wrong = {
        "another size": (
            network(5),
            r"of shape \[5, 6\], as in the NeuralPolicy, got it as .*\[4, 6\]",
        ),
        "another type": (network(dtype=torch.float64), "torch.float64"),
        "another class": (cai.TabularPolicy(models.ledge()), "got those of a NeuralPolicy"),
        "no module": (3, "into: expected a torch module, got int"),
    }
    for other, match in wrong.values():
        before = dict(other.state_dict()) if isinstance(other, nn.Module) else {}
        kept = {name: x.clone() for name, x in before.items()}
        with pytest.raises(ValueError, match=match):
            cai.load(path, into=other)
        assert all(x.equal(kept[name]) for name, x in before.items())
    cai.save(TABLES["dense"](), path)
    with pytest.raises(ValueError, match="the parameters of a NeuralPolicy, got a Table; leave"):
        cai.load(path, into=network())
    table = cai.TabularPolicy(models.ledge())
    with torch.no_grad():
        table.logits.normal_()
    cai.save(table, path)
    assert differences(cai.load(path, into=cai.TabularPolicy(models.ledge())), table) == []


def of_noise():
    model = models.multigoal(horizon=3)
    return model, cai.NeuralPolicy(model, head=cai.NoiseHead(4, (8,)))


MEASURED = {
    "exact": lambda: cai.evaluate(models.ledge(), cai.TabularPolicy(models.ledge())),
    "simulated": lambda: cai.evaluate(
        models.pendulum(horizon=3), cai.NeuralPolicy(models.pendulum(horizon=3)), samples=50
    ),
    "without density": lambda: cai.evaluate(*of_noise(), samples=20),
}


@pytest.mark.parametrize("name", MEASURED)
def test_an_evaluation_comes_back_to_the_bit(name, tmp_path):
    evaluation = MEASURED[name]()
    assert differences(evaluation, back(evaluation, tmp_path)) == []


def tabular_report():
    model = models.gridworld("bridge", horizon=6)
    fitted = inference.fit(model, cai.NeuralPolicy(model, hidden=(3,)), steps=3, progress=False)
    methods = {
        "kind": inference.posterior(model),  # a name like any other
        "fit": fitted,
        "prior": lambda t, s: model.prior(s),
        "robust": inference.robust(model, 0.1),
    }
    return cai.compare(model, methods)


REPORTS = {
    "tabular": tabular_report,
    "Gaussian": lambda: cai.compare(line(), {"posterior": inference.posterior(line())}),
    "simulated": lambda: cai.compare(
        models.pendulum(horizon=2), {"a": cai.NeuralPolicy(models.pendulum(horizon=2))}
    ),
}


@pytest.mark.parametrize("name", REPORTS)
def test_a_comparison_comes_back_with_its_rows(name, tmp_path):
    report = REPORTS[name]()
    found = back(report, tmp_path)
    assert differences(report, found) == []
    assert str(found) == str(report)
    assert found._repr_html_() == report._repr_html_()
    for title in report:
        one, other = report[title].evaluation, found[title].evaluation
        assert differences(one, other) == []
    twice = back(found, tmp_path)
    assert differences(found, twice) == []


def test_figures_of_a_loaded_comparison_are_those_of_the_original(tmp_path):
    """Also of a method that no file holds, whose policy is kept as a table."""
    report = tabular_report()
    found = back(report, tmp_path)
    for draw in (plot.comparison, plot.occupancy, plot.policies):
        drawn = [draw(x) for x in (report, found)]
        canvases = [FigureCanvasAgg(figure) for figure in drawn]
        for canvas in canvases:
            canvas.draw()
        one, other = (np.asarray(canvas.buffer_rgba()) for canvas in canvases)
        assert np.array_equal(one, other)


def test_the_model_of_a_comparison_that_was_simulated_is_in_no_file(tmp_path):
    found = back(REPORTS["simulated"](), tmp_path)
    with pytest.raises(AttributeError, match=r"model.simulate: expected a model, .* build the"):
        found.model.simulate(None, 10)
    with pytest.raises(ValueError, match="model"):
        cai.evaluate(found.model, lambda t, s: None)


@pytest.mark.parametrize("thing", [models.ledge(), {"a": 1}, [1.0], "text", 3, None, print])
def test_what_is_no_result_is_refused(thing, tmp_path):
    with pytest.raises(ValueError, match=r"save: expected .*; save cai.tabulate") as error:
        cai.save(thing, tmp_path / "x.pt")
    assert len(str(error.value)) < 1000
    assert os.listdir(tmp_path) == []


def test_a_subclass_with_a_program_is_no_matrix(tmp_path):
    class Own(cai.LinearGaussian):
        pass

    model = line()
    held = {x.name: getattr(model, x.name) for x in dataclasses.fields(model) if x.init}
    for wrong, match in (
        (Own(**held), "got Own"),
        (dataclasses.replace(model, terminal=lambda s: s[..., 0] > 1e9), "with a function in it"),
    ):
        with pytest.raises(ValueError, match=match):
            cai.save(wrong, tmp_path / "x.pt")


# Files that are not whole, or not ours.


@pytest.fixture
def whole(tmp_path):
    path = tmp_path / "posterior.pt"
    cai.save(inference.posterior(models.ledge()), path)
    return path


def test_a_truncated_file_is_refused_at_every_length(whole):
    content = whole.read_bytes()
    lengths = [*range(0, len(content), 97), len(content) - 1]
    for n in lengths:
        whole.write_bytes(content[:n])
        with pytest.raises(
            ValueError, match=rf"load .*{whole.name}: expected a file that cai.save"
        ):
            cai.load(whole)


def loaded_or_refused(path):
    """The result, or None where an error names the file."""
    with contextlib.suppress(ValueError):
        return cai.load(path)
    with pytest.raises(ValueError, match=path.name):
        cai.load(path)
    return None


def test_a_damaged_file_is_refused_or_says_the_same(whole):
    """Some bytes of an archive mean nothing."""
    content, solution = whole.read_bytes(), cai.load(whole)
    draw, refused = random.Random(0), 0
    for _ in range(150):
        broken, at = bytearray(content), draw.randrange(len(content))
        broken[at] ^= 1 << draw.randrange(8)
        whole.write_bytes(broken)
        found = loaded_or_refused(whole)
        refused += found is None
        assert found is None or differences(solution, found) == []
    assert refused > 75


class Evil:
    def __reduce__(self):
        return os.mkdir, ("evil",)


def foreign(path, kind):
    if kind == "text":
        path.write_text("not a result", encoding="utf-8")
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "pickle":
        path.write_bytes(pickle.dumps({"format": "cai.save"}))
    elif kind == "archive":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a.txt", "a")
    elif kind == "code":
        torch.save({"format": "cai.save", "number": 1, "content": Evil()}, path)
    elif kind == "tensors of another":
        torch.save({"weights": torch.ones(3)}, path)
    elif kind == "a list":
        torch.save([1, 2], path)
    elif kind == "without content":
        torch.save({"format": "cai.save", "number": 1}, path)
    elif kind == "unknown kind":
        torch.save({"format": "cai.save", "number": 1, "content": {"class": "Secret"}}, path)
    elif kind == "without fields":
        torch.save({"format": "cai.save", "number": 1, "content": {"class": "Table"}}, path)
    elif kind == "a folder":
        path.mkdir()


@pytest.mark.parametrize(
    "kind",
    [
        *("text", "empty", "pickle", "archive", "code", "tensors of another", "a list", "nothing"),
        *("without content", "unknown kind", "without fields", "a folder"),
    ],
)
def test_a_foreign_file_is_refused_by_name_and_runs_nothing(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "foreign.pt"
    foreign(path, kind)
    with pytest.raises(
        ValueError, match=r"load .*foreign.pt: expected a file that cai.save wrote"
    ) as e:
        cai.load(path)
    assert len(str(e.value)) < 1000
    assert "\n" not in str(e.value)
    assert not (tmp_path / "evil").exists()


def test_a_newer_file_names_the_version_that_wrote_it(whole):
    content = torch.load(whole, weights_only=True)
    assert (content["format"], content["number"]) == ("cai.save", saved_file._NUMBER)
    assert content["version"] == cai.__version__
    torch.save(content | {"number": saved_file._NUMBER + 1, "version": "9.9"}, whole)
    with pytest.raises(
        ValueError, match=r"posterior.pt: .*of format 2, written by version 9.9; inst"
    ):
        cai.load(whole)


def test_a_checkpoint_is_no_result_and_says_whose_it_is(tmp_path):
    model, path = models.ledge(), tmp_path / "fit.pt"
    inference.fit(model, cai.TabularPolicy(model), steps=3, checkpoint=path, progress=False)
    with pytest.raises(
        ValueError, match=r"fit.pt: .* got a checkpoint of fit; pass it to inference"
    ):
        cai.load(path)
    cai.save(cai.tabulate(model), path)
    with pytest.raises(ValueError, match="a file that fit wrote"):
        inference.fit(model, cai.TabularPolicy(model), steps=3, checkpoint=path, progress=False)


def test_a_table_with_numbers_that_it_cannot_have_is_refused(tmp_path):
    path = tmp_path / "table.pt"
    cai.save(TABLES["dense"](), path)
    content = torch.load(path, weights_only=True)
    content["content"]["reward"][0, 0] = math.nan
    torch.save(content, path)
    with pytest.raises(ValueError, match=r"table.pt: .*does not fit \(ValueError: reward"):
        cai.load(path)


# Written whole.


def test_a_file_that_cannot_be_written_leaves_the_old_one(whole, monkeypatch):
    before = whole.read_bytes()

    def full(content, file):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(ValueError, match=r"path .*posterior.pt: expected room to write"):
        cai.save(cai.TabularPolicy(models.ledge()), whole)
    assert whole.read_bytes() == before
    assert os.listdir(whole.parent) == [whole.name]


def test_an_interrupt_leaves_the_old_file_and_nothing_else(whole, monkeypatch):
    before = whole.read_bytes()

    def interrupted(handle):
        raise KeyboardInterrupt

    monkeypatch.setattr(whole_file.os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        cai.save(cai.TabularPolicy(models.ledge()), whole)
    assert whole.read_bytes() == before
    assert os.listdir(whole.parent) == [whole.name]


@pytest.mark.skipif(os.name != "posix", reason="permissions are those of POSIX")
def test_a_file_has_the_permissions_of_any_other(tmp_path):
    for x, name in ((TABLES["dense"](), "table.pt"),):
        cai.save(x, tmp_path / name)
        (tmp_path / "plain").write_text("", encoding="utf-8")
        modes = [stat.S_IMODE(os.stat(tmp_path / n).st_mode) for n in (name, "plain")]
        assert modes[0] == modes[1]


@pytest.mark.parametrize(
    ("path", "match"),
    [
        (3, "path: expected the path of a file, got 3"),
        ("no/such/folder/x.pt", "does not exist; make it first"),
        (".", "a folder"),
        ("a\0b", "a name holds no zeros"),
    ],
)
def test_a_path_that_is_none_is_refused(path, match):
    with pytest.raises(ValueError, match=match):
        cai.save(TABLES["dense"](), path)


def test_a_flat_prior_keeps_its_size(tmp_path):
    model = models.linear_gaussian(
        [[1.0, 0.0], [0.0, 1.0]], [[1.0], [0.5]], horizon=3, R=[[1.0]], noise=[[0.1, 0], [0, 0.1]]
    )
    found = back(model, tmp_path)
    assert isinstance(found.action_prior, cai.FlatPrior)
    assert found.action_prior.event_shape == (1,)
    steps = dist.MultivariateNormal(torch.zeros(3, 1), torch.eye(1))
    model = dataclasses.replace(line(), action_prior=steps)
    assert differences(model, back(model, tmp_path)) == []


def test_hidden_files_of_the_user_stay(tmp_path):
    """Only what a killed process of ours may have left is cleaned up."""
    mine = [tmp_path / name for name in (".it.pt-backup", ".it.pt-2024_01", ".it.pt-0123")]
    for file in mine:
        file.write_text("mine")
    left = tmp_path / ".it.pt-0123456789abcdef"
    left.write_text("half")
    cai.save(inference.posterior(models.ledge()).table, tmp_path / "it.pt")
    assert [file.read_text() for file in mine] == ["mine"] * 3
    assert not left.exists()


@pytest.mark.parametrize("content", [5, {"state": {}}, {"class": "parameters", "state": {}}])
def test_content_that_is_no_result_is_refused(content, tmp_path):
    path = tmp_path / "it.pt"
    head = {"format": "cai.save", "number": 1, "version": "x"}
    torch.save(head | {"content": content}, path)
    for into in (None, cai.TabularPolicy(models.ledge())):
        with pytest.raises(ValueError, match=r"load .*: expected"):
            cai.load(path, into=into)


@pytest.mark.skipif(os.name != "posix", reason="links need rights elsewhere")
def test_a_symbolic_link_stays_one(tmp_path):
    (tmp_path / "far").mkdir()
    file, link = tmp_path / "far" / "it.pt", tmp_path / "latest.pt"
    file.write_bytes(b"old")
    link.symlink_to(file)
    left = file.with_name(".it.pt-0123456789abcdef")
    left.write_text("half")
    table = TABLES["dense"]()
    cai.save(table, link)
    assert link.is_symlink()
    assert differences(table, cai.load(file)) == []
    assert os.listdir(file.parent) == [file.name]


def test_a_link_to_nothing_makes_the_file(tmp_path):
    (tmp_path / "latest.pt").symlink_to(tmp_path / "it.pt")
    cai.save(TABLES["dense"](), tmp_path / "latest.pt")
    assert (tmp_path / "latest.pt").is_symlink()
    assert not (tmp_path / "it.pt").is_symlink()
