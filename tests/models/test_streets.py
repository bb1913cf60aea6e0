"""Road networks from graphs, columns and TNTP files: the same network, or what is wrong with it."""

import io
import math
import types

import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import cai
from cai import models

PLACES = {"s": (0, -100), "c": (0, 0), "n": (0, 100), "w": (-100, 0), "e": (100, 0)}


def crossing(**attributes):
    """One drives north into a crossing of four streets."""
    graph = nx.MultiDiGraph()
    for name, (x, y) in PLACES.items():
        graph.add_node(name, x=x, y=y)
    graph.add_edge("s", "c", length=100.0)
    for end in "nwes":
        graph.add_edge("c", end, length=100.0, **attributes)
    return graph


def turned(streets, u, v):
    """The turn features of leaving the crossing, from the south."""
    n = streets.locate_turns([streets.segment("s", "c")], [streets.segment(u, v)])
    return {name: x[n].item() for name, x in streets.turn_features.items()}


def same(one, other):
    """Whether two networks hold the same names and numbers."""
    for name in ("segment_names", "node_names", "degrees"):
        assert getattr(one, name) == getattr(other, name)
    for name in ("segments", "turns", "coordinates", "points", "bounds"):
        assert torch.equal(getattr(one, name), getattr(other, name))
    for name in ("segment_features", "turn_features"):
        here, there = getattr(one, name), getattr(other, name)
        assert list(here) == list(there)
        assert all(torch.equal(here[x], there[x]) for x in here)


def test_left_is_left_and_right_is_right():
    streets = models.streets(crossing())
    assert streets.node_names == ("s", "c", "n", "w", "e")
    expected = {"n": (0, 0, 0, 0), "w": (-90, 1, 0, 0), "e": (90, 0, 1, 0), "s": (180, 0, 0, 1)}
    for end, numbers in expected.items():
        assert tuple(turned(streets, "c", end).values()) == pytest.approx(numbers)


@pytest.mark.parametrize("degree", [-179, -151, -149, -41, -39, 39, 41, 149, 151])
@pytest.mark.parametrize("latitude", [None, 60.0])
def test_limits_of_turns_and_the_cosine_of_the_latitude(degree, latitude):
    graph = crossing()
    x, y = math.sin(math.radians(degree)), math.cos(math.radians(degree))
    graph.add_edge("c", "there")
    graph.add_node("there", x=100 * x, y=100 * y)
    if latitude is not None:  # degrees of longitude are half as long as those of latitude there
        for data in graph.nodes.values():
            data["x"], data["y"] = data["x"] * 2e-5 + 20, data["y"] * 1e-5 + latitude
    streets = models.streets(graph, {}, degrees=latitude is not None)
    left, right = -150 <= degree <= -40, 40 <= degree <= 150
    expected = (degree, int(left), int(right), int(abs(degree) > 150))
    assert tuple(turned(streets, "c", "there").values()) == pytest.approx(expected, abs=0.02)


def test_limits_are_arguments_and_the_way_back_is_a_u_turn_whatever_its_course():
    graph = crossing()
    graph.add_edge("c", "s", key="round", geometry="LINESTRING Z (0 0 1, 90 0 1, 0 -100 1)")
    streets = models.streets(graph, {}, limits=(91.0, 179.0))
    assert turned(streets, "c", "w") == {"angle": -90, "left": 0, "right": 0, "u_turn": 0}
    n = streets.locate_turns([0], [streets.segment("c", "s", "round")])
    assert streets.feature("angle")[n].item() == pytest.approx(90)
    assert streets.feature("u_turn")[n].item() == 1


@pytest.mark.parametrize("wkt", [True, False])
def test_angles_are_those_of_the_last_and_the_first_leg_of_the_lines(wkt):
    """The street to the east begins towards the north-west, and the point of the end is twice."""
    graph = crossing()
    points = [(0.0, 0.0), (0.0, 0.0), (-10.0, 10.0), (100.0, 0.0), (100.0, 0.0)]
    text = f"LINESTRING ({', '.join(f'{x} {y}' for x, y in points)})"
    line = text if wkt else types.SimpleNamespace(coords=points)
    graph.edges["c", "e", 0]["geometry"] = line
    graph.add_edge("e", "on")
    graph.add_node("on", x=200.0, y=0.0)
    streets = models.streets(graph, {})
    assert turned(streets, "c", "e")["angle"] == pytest.approx(-45)
    n = streets.locate_turns([streets.segment("c", "e")], [streets.segment("e", "on")])
    legs = math.degrees(math.atan2(10, 110))  # the last leg goes down to the east
    assert streets.feature("angle")[n].item() == pytest.approx(-legs)
    assert streets.lines[streets.segment("c", "e")].tolist() == [list(p) for p in points]


def test_geometries_alone_place_the_nodes():
    columns = {"tail": "ab", "head": "bc", "line": ["LINESTRING(0 0,0 9)", "LINESTRING(0 9,9 9)"]}
    streets = models.streets_from_columns(columns, {}, geometry="line")
    assert streets.coordinates.tolist() == [[0, 0], [0, 9], [9, 9]]
    assert streets.feature("right").tolist() == [1]


def test_a_reversed_line_is_found_wherever_the_next_one_is():
    lines = ["LINESTRING (0 9, 0 0)", "LINESTRING (900 0, 909 0)"]
    nodes = {"node": "abcd", "x": [0, 0, 900, 909], "y": [0, 9, 0, 0]}
    columns = {"tail": "ac", "head": "bd", "line": lines}
    with pytest.raises(ValueError, match=r"row 0: geometry: .*reverse"):
        models.streets_from_columns(columns, {}, geometry="line", nodes=nodes)


def test_attributes_as_texts_functions_and_numbers():
    graph = crossing(lanes="2", highway="primary")
    graph.edges["s", "c", 0].update(lanes="1", highway="residential")
    made = {
        "lanes": "lanes",
        "doubled": lambda e: e["lanes"] * 2,
        "main": lambda e: e["highway"] == "primary",
        "segment": 1.0,
    }
    streets = models.streets(graph, made)
    found = {name: x.tolist() for name, x in streets.segment_features.items()}
    assert found == {
        "lanes": [1, 2, 2, 2, 2],
        "doubled": [2, 4, 4, 4, 4],
        "main": [0, 1, 1, 1, 1],
        "segment": [1] * 5,
    }
    assert all(x.dtype == torch.float64 for x in streets.segment_features.values())


def test_graphml_as_osmnx_saves_it(tmp_path):
    graph = crossing()
    graph.graph["crs"] = "epsg:4326"
    for u, v, data in graph.edges(data=True):
        ends = [graph.nodes[node] for node in (u, v)]
        where = [f"{20 + p['x'] * 1e-5} {60 + p['y'] * 1e-5}" for p in ends]
        data["length"], data["travel_time"] = "100.0", "7.2"
        data["geometry"] = f"LINESTRING ({', '.join(where)})"
    for data in graph.nodes.values():
        data["x"], data["y"] = str(20 + data["x"] * 1e-5), str(60 + data["y"] * 1e-5)
    nx.write_graphml(graph, tmp_path / "drive.graphml")
    read = nx.read_graphml(tmp_path / "drive.graphml", force_multigraph=True)
    streets = models.streets(read)
    assert streets.degrees
    assert list(streets.segment_features) == ["length", "travel_time"]
    assert streets.segment_features["travel_time"].tolist() == [7.2] * 5
    assert streets.segment_names[0] == ("s", "c", 0)
    assert streets.locate(["s"], ["c"], ["0"]).tolist() == [0]


edges = st.lists(
    st.tuples(st.integers(1, 6), st.integers(1, 6), st.integers(1, 999)), min_size=1, max_size=25
)


@given(edges, st.integers(0, 4))
def test_graph_columns_and_file_give_the_same_network_whose_turns_join(drawn, first):
    """By brute force over all pairs of segments."""
    graph = nx.MultiDiGraph()
    for u, v, length in drawn:
        graph.add_edge(u, v, length=length / 8)
    listed = list(graph.edges(keys=True, data="length"))
    graph.add_nodes_from((u, {"x": 10 * math.cos(u), "y": 10 * math.sin(2 * u)}) for u in graph)
    if any(u == v for u, v, _, _ in listed):  # a loop without a course has no angle
        graph.remove_edges_from(list(nx.selfloop_edges(graph, keys=True)))
        listed = list(graph.edges(keys=True, data="length"))
        graph.remove_nodes_from(list(nx.isolates(graph)))
    if not listed:
        return
    zones = [u for u in graph if u < first]
    one = models.streets(graph, {"length": "length"}, zones=zones)
    columns = dict(zip(("u", "v", "key", "length"), zip(*listed, strict=True), strict=True))
    nodes = {"node": list(graph), "x": [], "y": []}
    for axis in "xy":
        nodes[axis] = [graph.nodes[u][axis] for u in graph]
    names = {"tail": "u", "head": "v", "key": "key"}
    same(one, models.streets_from_columns(columns, nodes=nodes, zones=zones, **names))
    net = [f"<FIRST THRU NODE> {first}", "<END OF METADATA>", "~\tfrom\tto\tlength\t;"]
    net += [f"\t{u}\t{v}\t{length!r}\t;" for u, v, _, length in listed]
    place = ["Node X Y ;", *(f"{u} {x!r} {y!r} ;" for u, x, y in zip(*nodes.values(), strict=True))]
    files = [io.StringIO("\n".join(text)) for text in (net, place)]
    same(one, models.streets_from_tntp(*files))
    expected = [
        [i, j]
        for i, (_, v, _, _) in enumerate(listed)
        for j, (u, _, _, _) in enumerate(listed)
        if u == v and v not in zones
    ]
    assert one.turns.tolist() == expected
    entered = [listed[j][3] for _, j in expected]
    assert one.feature("length").tolist() == entered
    goes_on = {i for i, _ in expected}
    assert one.dead_ends.tolist() == [e for e in range(len(listed)) if e not in goes_on]


class Frame:
    """What data frames of all libraries have in common."""

    def __init__(self, **columns):
        self._columns = {name: np.array(x) for name, x in columns.items()}
        self.columns = list(columns)

    def __getitem__(self, name):
        return self._columns[name]


def test_columns_of_a_frame_and_functions_of_them():
    frame = Frame(tail=["a", "b"], head=["b", "a"], hours=["0.5", "0.25"])
    streets = models.streets_from_columns(frame, {"minutes": lambda c: c["hours"] * 60, "one": 1})
    assert streets.segment_features["minutes"].tolist() == [30, 15]
    assert streets.segment_features["one"].tolist() == [1, 1]
    assert list(models.streets_from_columns(frame).segment_features) == ["hours"]


def test_turns_of_ones_own_with_angles_and_other_features():
    columns = {"tail": "abb", "head": "bca"}
    turns = {"from": [2, 0], "to": [0, 1], "angle": [5, -60], "lights": [0, 1]}
    streets = models.streets_from_columns(columns, turns=turns)
    assert streets.turns.tolist() == [[0, 1], [2, 0]]
    found = {name: x.tolist() for name, x in streets.turn_features.items()}
    assert found["lights"] == [1, 0]
    assert (found["left"], found["right"], found["u_turn"]) == ([1, 0], [0, 0], [0, 1])
    zoned = models.streets_from_columns(columns, turns=turns, zones=["a"])
    assert zoned.turns.tolist() == [[0, 1]]
    assert zoned.feature("angle").tolist() == [-60]


def test_at_the_limits_themselves():
    angle = [-151, -150, -40, -39.9, 0, 39.9, 40, 150, 151]
    streets = models.streets_from_columns(
        {"tail": "a" + "b" * 9, "head": "bcdefghijk"},
        turns={"from": [0] * 9, "to": range(1, 10), "angle": angle},
    )
    kinds = streets.features(["left", "right", "u_turn"]) @ torch.tensor([1.0, 2, 3]).double()
    assert kinds.tolist() == [3, 1, 1, 0, 0, 0, 2, 2, 3]


NET = """<NUMBER OF ZONES> 1\t
<FIRST THRU NODE> 2
<NUMBER OF LINKS> 5
<ORIGINAL HEADER>~ \tTail\tHead\tTime (h)\tLength (ft)\t;
<END OF METADATA>\t\t
\t\t\t
~ a comment of somebody's
~ \tInit node\tTerm node \tFree Flow Time (min)\tLength (ft)\t;
\t1\t2\t0\t5\t;
\t2\t1\t0 \t5 ;
~ another
\t2\t3\t1.5\t60\t;
\t2\t3\t2.5\t90\t;

\t3\t2\t1.5\t60\t;
"""


def test_habits_of_tntp_files(tmp_path):
    (tmp_path / "net.tntp").write_text(NET, encoding="utf-8")
    streets = models.streets_from_tntp(tmp_path / "net.tntp")
    assert list(streets.segment_features) == ["free_flow_time", "length"]
    assert streets.segment_names[2:4] == ((2, 3, 0), (2, 3, 1))
    assert streets.segment_features["free_flow_time"].tolist() == [0, 0, 1.5, 2.5, 1.5]
    assert streets.dead_ends.tolist() == [1]  # into the zone, through which nobody drives
    assert [0, 1] in streets.turns.tolist()  # back into the zone, through node 2
    assert streets.turn_features == {}
    header = NET.replace("~ \tInit", "~ no \tInit").replace("~ another\n", "")
    named = models.streets_from_tntp(io.StringIO(header)).segment_features
    assert list(named) == ["time", "length"]


def columns(**changes):
    made = {"tail": ["a", "b"], "head": ["b", "a"], "length": [1.0, 2.0]} | changes
    return lambda: models.streets_from_columns(made)


def graph(kind=nx.MultiDiGraph, degrees=None, features=None, **attributes):
    def make():
        made = kind()
        made.add_edge("a", "b", **attributes)
        return models.streets(made, features, degrees=degrees)

    return make


def placed(a, b, line=None, degrees=None):
    def make():
        made = {"tail": ["a"], "head": ["b"], "line": [line]}
        nodes = {"node": ["a", "b"], "x": [a[0], b[0]], "y": [a[1], b[1]]}
        return models.streets_from_columns(made, {}, geometry="line", nodes=nodes, degrees=degrees)

    return make


def tntp(old, new):
    return lambda: models.streets_from_tntp(io.StringIO(NET.replace(old, new)))


def turns(**given):
    return lambda: models.streets_from_columns({"tail": "ab", "head": "ba"}, turns=given)


WRONG = {
    "an empty mapping": (lambda: models.streets_from_columns({}), "tail.*name of a column"),
    "no rows": (columns(tail=[], head=[], length=[]), "at least one.*empty"),
    "no mapping": (lambda: models.streets_from_columns(3), "mapping of columns.*int"),
    "fewer rows": (columns(head=["b"]), "head: expected 2 rows.*got 1"),
    "fewer numbers": (columns(length=[1.0]), "features: length: expected 2 numbers"),
    "parallel": (
        columns(head=["b", "b"], tail=["a", "a"]),
        r"row 1: .*\('a', 'b'\), as row 0.*key",
    ),
    "missing": (columns(length=[1.0, None]), "row 1: length: .*got nothing"),
    "NaN": (columns(length=[math.nan, 1.0]), "row 0: length: .*nan"),
    "negative": (columns(length=[1.0, -2.0]), "row 1: length: expected a finite number ≥ 0.*-2"),
    "no number": (columns(name=["x", "y"]), "row 0: name: .*'x'"),
    "1 and '1'": (columns(tail=[1, "1"]), "node_names: .*1 twice"),
    "no turn": (turns(**{"from": [0, 0], "to": [1, 0]}), r"turns, row 1: .*join.*\[0.0, 0.0\]"),
    "beyond": (turns(**{"from": [0], "to": [2]}), "turns, row 0"),
    "twice": (turns(**{"from": [0, 0], "to": [1, 1]}), "turns in ascending order"),
    "no graph": (lambda: models.streets([]), "graph: .*list"),
    "undirected": (graph(nx.Graph), "a directed graph.*to_directed"),
    "an empty graph": (lambda: models.streets(nx.DiGraph()), "at least one"),
    "an attribute": (graph(features={"x": "t"}), r"edge \('a', 'b', 0\): t: .*nothing"),
    "a list": (graph(length=["1", "2"]), r"edge \('a', 'b', 0\): length"),
    "a function": (graph(features={"x": lambda e: e["t"]}, u=1), "edge.*: x: .*KeyError.* has u"),
    "features": (graph(features=["length"]), "features: expected a mapping"),
    "like degrees": (placed((24.9, 60.1), (24.91, 60.1)), "look like degrees.*degrees=True"),
    "metres": (placed((4e5, 6e6), (4e5, 7e6), degrees=True), "coordinates: expected degrees"),
    "reversed": (placed((0, 0), (0, 9), "LINESTRING (0 9, 0 0)"), "row 0: geometry: .*reverse"),
    "no line": (placed((0, 0), (0, 9), "POINT (0 9)"), "row 0: geometry: expected LINESTRING"),
    "broken line": (placed((0, 0), (0, 9), "LINESTRING (0 9, x 1)"), "row 0: geometry"),
    "an empty file": (lambda: models.streets_from_tntp(io.StringIO("")), "net: .*none"),
    "no file": (lambda: models.streets_from_tntp("nowhere.tntp"), "net: .*No such file"),
    "too few links": (tntp("LINKS> 5", "LINKS> 6"), "net: expected 6 links"),
    "an entry more": (tntp("1.5\t60", "1.5\t6 0"), "net, line 12: expected 4 entries"),
    "no header": (tntp("~ ", "~ \tx"), "names its 4 columns"),
    "no node": (tntp("\t3\t2", "\t3\tx"), "net, line 15: .*'x'"),
    "no time": (tntp("2.5", "-"), "segment|row 3: free_flow_time"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_said_in_one_line_with_its_place(name):
    make, message = WRONG[name]
    with pytest.raises(ValueError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_some_nodes_without_coordinates_are_refused_and_zones_must_exist():
    graph = crossing()
    del graph.nodes["w"]["x"]
    with pytest.raises(ValueError, match=r"node 'w': expected coordinates"):
        models.streets(graph)
    with pytest.raises(ValueError, match=r"zones: .*got x"):
        models.streets(crossing(), zones=["x"])
    for limits in ((0, 1), (50, 40), (40, 181), 3, "ab"):
        with pytest.raises(ValueError, match="limits"):
            models.streets(crossing(), limits=limits)


def test_a_segment_without_length_has_no_angle_and_that_is_said():
    graph = crossing()
    graph.nodes["e"].update(x=0, y=0)
    with pytest.warns(UserWarning, match=r"1 turns .*\('s', 'c', 0\) to \('c', 'e', 0\)"):
        streets = models.streets(graph)
    assert turned(streets, "c", "e") == {"angle": 0, "left": 0, "right": 0, "u_turn": 0}


def test_lengths_in_degrees_are_told():
    graph = crossing()
    for data in graph.nodes.values():
        data["x"], data["y"] = data["x"] * 1e-5, data["y"] * 1e-5
    assert models.streets(graph, degrees=True).degrees
    for _, _, data in graph.edges(data=True):
        data["length"] = 1e-3
    with pytest.warns(UserWarning, match="degrees taken for metres"):
        models.streets(graph, degrees=True)


def test_a_graph_says_whether_its_coordinates_are_degrees():
    graph = crossing()
    for data in graph.nodes.values():
        data["x"], data["y"] = data["x"] * 1e-5, data["y"] * 1e-5
    for crs, degrees in {"EPSG:4326": True, "epsg:3067": False}.items():
        graph.graph["crs"] = crs
        assert models.streets(graph).degrees == degrees
    graph.graph["crs"] = types.SimpleNamespace(is_geographic=True)
    assert models.streets(graph).degrees
    assert isinstance(models.streets(graph), cai.Streets)
