"""``cai routes``: networks of every kind of file, and what the library says of the same trips."""

import csv
import json

import matplotlib.image
import networkx as nx
import pytest
import torch
from command_line import run

import cai
from cai import __main__ as command
from cai import inference, models

NAMES = ["minutes", "left", "u_turn"]
WEIGHTS = torch.tensor([-6.0, -0.5, -1.5], dtype=torch.float64)


def listing(folder):
    return sorted(path.name for path in folder.iterdir())


def table(path, rows):
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return path


@pytest.fixture(scope="module")
def town():
    return models.city(5, 5, seed=2)


def columns_of(town):
    """The segments of a town as rows of a table, with a text in one column."""
    minutes = town.segment_features["minutes"].tolist()
    return [
        ["u", "v", "minutes", "name"],
        *([u, v, x, "a street"] for (u, v, _), x in zip(town.segment_names, minutes, strict=True)),
    ]


def nodes_of(town):
    places = zip(town.node_names, town.coordinates.tolist(), strict=True)
    return [["node", "x", "y"], *([name, x, y] for name, (x, y) in places)]


@pytest.fixture(scope="module")
def files(town, tmp_path_factory):
    """A folder with a network, its nodes and trips of five drivers; and the trips."""
    folder = tmp_path_factory.mktemp("files")
    table(folder / "net.csv", columns_of(town))
    table(folder / "nodes.csv", nodes_of(town))
    goals = [3, 17, 30]
    routes = inference.Routes(town, tuple(NAMES), WEIGHTS, torch.tensor(goals))
    rng = torch.Generator().manual_seed(0)
    rows = [["trip", "driver", "u", "v"]]
    for i in range(60):
        origin = int(torch.randint(40, 60, (), generator=rng))
        path = routes.sample(origin, goals[min(i % 4, 2)], 1, seed=i)[0].tolist()
        rows += [[f"t{i}", i % 5, *town.segment_names[e][:2]] for e in path]
    table(folder / "trips.csv", rows)
    trips = town.demonstrations(folder / "trips.csv", segment=("u", "v"), group="driver")
    return folder, trips


@pytest.fixture
def network(files):
    folder, _ = files
    return folder / "net.csv", "--nodes", folder / "nodes.csv"


@pytest.fixture(scope="module")
def fitted(files, tmp_path_factory):
    """The folder that ``routes fit`` wrote."""
    folder, _ = files
    out = tmp_path_factory.mktemp("fitted") / "out"
    given = ("--nodes", folder / "nodes.csv", "--features", ",".join(NAMES), "--cluster", "driver")
    arguments = ("routes", "fit", folder / "net.csv", folder / "trips.csv", *given, "--out", out)
    assert command.main([str(x) for x in [*arguments, "--quiet"]]) == 0
    return out


def test_the_weights_are_those_of_the_library(town, files, fitted):
    _, trips = files
    assert listing(fitted) == ["estimates.png", "fit.json", "fit.md"]
    found = json.loads((fitted / "fit.json").read_text(encoding="utf-8"))
    expected = inference.fit_reward(town, trips, NAMES, cluster="group")
    for name, weight in expected.weights.items():
        each = found["weights"][name]
        assert each["weight"] == pytest.approx(weight, rel=1e-6)
        assert each["std_error"] == pytest.approx(expected.std_errors[name], rel=1e-6)
    assert found["errors"] == "clustered by group"
    goals = {town.segment(*goal[:-1]): goal[-1] for goal in found["goals"]}
    assert goals == trips.goal_counts
    assert matplotlib.image.imread(fitted / "estimates.png")[..., :3].std() > 0.01


def test_the_table_of_a_fit_is_printed(town, files, network, tmp_path, capsys):
    folder, trips = files
    arguments = ("routes", "fit", *network, folder / "trips.csv", "--features", "minutes,left")
    status, text, notes = run(capsys, *arguments, "--out", tmp_path / "out")
    assert status == 0
    assert [line.split()[0] for line in text.splitlines()[3:5]] == ["minutes", "left"]
    assert "errors by the information" in text
    assert notes.count("wrote ") == 3
    status, text, _ = run(capsys, *arguments, "--json", "--prior", 0.1, "--out", tmp_path / "out")
    prior = torch.distributions.Normal(torch.tensor(0.0, dtype=torch.float64), 0.1)
    expected = inference.fit_reward(town, trips, ["minutes", "left"], prior=prior).weights
    found = {name: x["weight"] for name, x in json.loads(text)["weights"].items()}
    assert found == pytest.approx(expected, rel=1e-6)
    every = ("routes", "fit", *network, folder / "trips.csv", "--json", "--out", tmp_path / "out")
    _, text, _ = run(capsys, *every)
    assert list(json.loads(text)["weights"]) == ["minutes", "angle", "left", "right", "u_turn"]


def test_what_the_library_warns_of_is_a_note(town, files, tmp_path, capsys):
    """Minutes, and centuries beside them."""
    folder, _ = files
    rows = columns_of(town)
    centuries = [["centuries"], *([row[2] / 52_560_000] for row in rows[1:])]
    net = table(tmp_path / "net.csv", [[*row, *x] for row, x in zip(rows, centuries, strict=True)])
    given = ("--features", "minutes,centuries", "--prior", 1, "--out", tmp_path / "out")
    for quiet in ((), ("--quiet",)):
        arguments = ("routes", "fit", net, folder / "trips.csv", *given, *quiet)
        status, _, notes = run(capsys, *arguments)
        assert status == 0
        lines = [line for line in notes.splitlines() if "millionfold" in line]
        assert len(lines) == (0 if quiet else 1)
        assert "Warning" not in notes


def loaded(weights, town, goals):
    return inference.Routes(town, tuple(NAMES), torch.tensor(weights, dtype=torch.float64), goals)


def weights_in(fitted):
    found = json.loads((fitted / "fit.json").read_text(encoding="utf-8"))["weights"]
    return [found[name]["weight"] for name in NAMES]


def test_a_route_its_probability_and_its_use(town, fitted, network, tmp_path, capsys):
    o, d = 45, 3
    routes = loaded(weights_in(fitted), town, torch.tensor([d]))
    ends = [",".join(map(str, town.segment_names[e][:2])) for e in (o, d)]
    arguments = ("routes", "predict", fitted, *network, "--from", ends[0], "--to", ends[1])
    status, text, notes = run(capsys, *arguments, "--out", tmp_path / "out")
    assert status == 0
    assert listing(tmp_path / "out") == ["route.json", "use.png"]
    assert notes.count("wrote ") == 2
    found = json.loads((tmp_path / "out" / "route.json").read_text(encoding="utf-8"))
    path = routes.likely(o, d)
    assert [town.segment(*name) for name in found["route"]] == path.tolist()
    turns = town.locate_turns(path[:-1], path[1:])
    trip = cai.Demonstrations.from_paths([path], [turns], ends="absorbed", goals=[d])
    log_p = float(routes.log_probability(trip))
    assert found["log_probability"] == pytest.approx(log_p, abs=1e-9)
    use = routes.use(o, d)
    for *name, share in found["use"]:
        assert share == pytest.approx(float(use[town.segment(*name)]), abs=1e-9)
    assert sum(share for *_, share in found["use"]) == pytest.approx(float(use.sum()), abs=1e-4)
    minutes = float(town.segment_features["minutes"][path[1:]].sum())
    assert found["features"]["minutes"] == pytest.approx(minutes)
    lines = text.splitlines()
    share = f"{len(path)} segments, probability {found['probability']:.3g}"
    assert lines[0] == f"The most probable route: {share}"
    assert lines[1].split() == ["segment", *NAMES, "use"]
    assert len(lines) == 3 + len(path) + 2
    _, text, _ = run(capsys, *arguments, "--json", "--quiet", "--out", tmp_path / "out")
    assert json.loads(text) == found


def test_a_network_without_places_has_no_map(files, tmp_path, capsys):
    folder, _ = files
    net, out = folder / "net.csv", tmp_path / "out"
    given = ("--features", "minutes", "--quiet", "--out", out)
    assert run(capsys, "routes", "fit", net, folder / "trips.csv", *given)[0] == 0
    rows = [row.split(",") for row in (folder / "trips.csv").read_text().splitlines()[1:]]
    first = [row for row in rows if row[0] == "t0"]
    ends = ("--from", ",".join(first[0][2:]), "--to", ",".join(first[-1][2:]))
    assert run(capsys, "routes", "predict", out / "fit.json", net, *ends, "--out", out)[0] == 0
    assert "use.png" not in listing(out)


def test_where_a_trip_is_going_as_it_unfolds(town, files, fitted, network, tmp_path, capsys):
    folder, trips = files
    arguments = ("routes", "destination", fitted, *network, folder / "trips.csv", "--trip", "t7")
    status, text, _ = run(capsys, *arguments, "--share", 0.5, "--out", tmp_path / "out")
    assert status == 0
    assert listing(tmp_path / "out") == ["destination.json", "destination.png", "map.png"]
    found = json.loads((tmp_path / "out" / "destination.json").read_text(encoding="utf-8"))
    trip = trips[7]
    length = int(trip.lengths[0])
    assert (found["trip"], found["of"], found["turns"][-1]) == ("t7", length, length // 2)
    assert town.segment(*found["ended"]) == trip.goal
    routes = loaded(weights_in(fitted), town, trips.goals.unique())
    for i, n in enumerate(found["turns"]):
        cut = trip.prefix(n / length)
        assert int(cut.lengths[0]) == n
        belief = routes.goal_posterior(cut, trips.goal_counts)
        for goal in found["goals"]:
            place = routes.goals.tolist().index(town.segment(*goal["segment"]))
            assert goal["probability"][i] == pytest.approx(float(belief[place]), abs=1e-9)
    last = [goal["probability"][-1] for goal in found["goals"]]
    assert last == sorted(last, reverse=True)
    lines = text.splitlines()
    assert lines[0].startswith(f"Trip t7, {length // 2} of {length} turns seen")
    assert lines[1].split()[-2:] == [str(length // 2), "turns"]
    assert sum("*" in line for line in lines[3:6]) == 1
    assert f"{last[0]:.3f}" == lines[3].split()[-1]


def test_a_trip_that_ended_elsewhere_is_said(files, fitted, network, town, tmp_path, capsys):
    e, other = town.turns[0].tolist()
    rows = [["trip", "u", "v"], *(["x", *town.segment_names[s][:2]] for s in (e, other))]
    trips = table(tmp_path / "other.csv", rows)
    arguments = ("routes", "destination", fitted, *network, trips, "--trip", "x", "--quiet")
    status, text, _ = run(capsys, *arguments, "--out", tmp_path / "out")
    assert status == 0
    assert "where no trip of the fit did" in text


def test_every_kind_of_file_holds_the_same_network(town, tmp_path, files, capsys):
    folder, _ = files
    graph = nx.MultiDiGraph(crs="epsg:3067")
    for name, (x, y) in zip(town.node_names, town.coordinates.tolist(), strict=True):
        graph.add_node(name, x=str(x), y=str(y))
    seconds = (60 * town.segment_features["minutes"]).tolist()
    for (u, v, _), x in zip(town.segment_names, seconds, strict=True):
        graph.add_edge(u, v, travel_time=str(x))
    nx.write_graphml(graph, tmp_path / "net.graphml")
    number = {name: i + 1 for i, name in enumerate(town.node_names)}
    lines = ["~ init_node term_node minutes ;"]
    lines += [
        f"{number[u]} {number[v]} {x / 60} ;"
        for (u, v, _), x in zip(town.segment_names, seconds, strict=True)
    ]
    (tmp_path / "net.tntp").write_text("\n".join(lines), encoding="utf-8")
    places = zip(town.node_names, town.coordinates.tolist(), strict=True)
    text = [f"{number[name]} {x} {y} ;" for name, (x, y) in places]
    (tmp_path / "nodes.tntp").write_text("\n".join(["node x y ;", *text]), encoding="utf-8")
    rows = [row.split(",") for row in (folder / "trips.csv").read_text().splitlines()]
    renamed = [[*row[:2], *(number[int(x)] for x in row[2:])] for row in rows[1:]]
    table(tmp_path / "trips.csv", [rows[0], *renamed])
    given = ("--features", "minutes,left,segment", "--json", "--quiet", "--out", tmp_path / "out")
    found = []
    for net, trips, nodes in (
        (folder / "net.csv", folder / "trips.csv", ("--nodes", folder / "nodes.csv")),
        (tmp_path / "net.graphml", folder / "trips.csv", ()),
        (tmp_path / "net.tntp", tmp_path / "trips.csv", ("--nodes", tmp_path / "nodes.tntp")),
    ):
        status, text, notes = run(capsys, "routes", "fit", net, trips, *nodes, *given)
        assert status == 0, notes
        weights = json.loads(text)["weights"]
        found.append({name: x["weight"] for name, x in weights.items()})
    assert found[1] == pytest.approx(found[0], rel=1e-4)
    assert found[2] == pytest.approx(found[0], rel=1e-4)


@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        (["fit", "NET", "TRIPS", "--features", "minutes,hills"], ["got hills", "minutes"]),
        (["fit", "NET", "TRIPS", "--features", "minutes,left"], ["turns have angles where"]),
        (["fit", "nowhere.csv", "TRIPS"], ["nowhere.csv: there is no such file"]),
        (["fit", "TRIPS", "NET", "--features", "driver"], ["a segment of its own"]),
        (["fit", "NET", "NET"], ["column 'trip'"]),
        (["fit", "NET", "NODES"], ["expected columns u and v, and perhaps key, got node, x, y"]),
        (["predict", "IRL", "NET", "--from", "1,2", "--to", "2,3"], ["of this version"]),
        (["fit", "NET", "TRIPS", "--cluster", "boss"], ["column 'boss'"]),
        (["predict", "NET", "NET", "--from", "1,2", "--to", "2,3"], ["the fit of cai routes fit"]),
        (
            ["predict", "empty", "NET", "--from", "1,2", "--to", "2,3"],
            ["the fit of cai routes fit"],
        ),
        (["predict", "FIT", "NET"], ["--from"]),
        (["predict", "FIT", "NET", "--from", "1", "--to", "2,3"], ["--from: expected U,V"]),
        (["predict", "FIT", "NET", "--from", "1,x", "--to", "2,3"], ["--from", "(1, x)"]),
        (["destination", "FIT", "NET", "TRIPS", "--trip", "99"], ["--trip: there is no 99", "t0"]),
        (["destination", "FIT", "NET", "TRIPS", "--trip", "t7", "--share", "0"], ["--share"]),
        ([], ["fit | drivers | predict | destination"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistakes(arguments, fragments, files, fitted, tmp_path, monkeypatch, capsys):
    folder, _ = files
    monkeypatch.chdir(tmp_path)
    nodes = ["--nodes", folder / "nodes.csv"] if "FIT" in arguments else []
    (folder / "other.json").write_text('{"weights": {}}', encoding="utf-8")
    places = {"NET": folder / "net.csv", "TRIPS": folder / "trips.csv", "FIT": fitted}
    places |= {"NODES": folder / "nodes.csv", "IRL": folder / "other.json"}
    given = [places.get(x, x) for x in arguments]
    status, text, notes = run(capsys, "routes", *given, *nodes)
    assert text == ""
    assert status == 2
    for fragment in fragments:
        assert fragment in notes
    assert listing(tmp_path) == []


def test_drivers_are_those_of_the_library(town, files, network, tmp_path, capsys):
    folder, trips = files
    arguments = ("routes", "drivers", *network, folder / "trips.csv", "--features", "minutes,left")
    out = tmp_path / "out"
    status, text, notes = run(capsys, *arguments, "--prior", 8, "--out", out)
    assert status == 0
    assert listing(out) == ["drivers.json", "drivers.md", "drivers.png"]
    prior = torch.distributions.Normal(torch.tensor(0.0, dtype=torch.float64), 8.0)
    names = ["minutes", "left"]
    expected = inference.reward_posterior(town, trips, names, prior, groups=True, progress=False)
    found = json.loads((out / "drivers.json").read_text(encoding="utf-8"))
    for label in expected.labels:
        one = found["groups"][str(label)]
        assert one["demonstrations"] == 12
        weights = {name: x["weight"] for name, x in one["weights"].items()}
        assert weights == pytest.approx(expected[label].weights, rel=1e-5)
    assert found["population"]["minutes"]["mean"] == pytest.approx(expected.weights["minutes"])
    assert text.startswith("Population of 5 demonstrators: 60 trips")
    assert "Weights of 5 demonstrators" in text
    assert notes.count("wrote ") == 3
    assert (out / "drivers.md").read_text(encoding="utf-8").count("| group |") == 1
    assert matplotlib.image.imread(out / "drivers.png")[..., :3].std() > 0.01
    status, text, _ = run(capsys, *arguments, "--json", "--prior", 8, "--quiet", "--out", out)
    assert json.loads(text) == found
    status, _, notes = run(capsys, *arguments, "--group", "pilot", "--out", out)
    assert status == 2
    assert "pilot" in notes
