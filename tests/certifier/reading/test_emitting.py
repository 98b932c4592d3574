"""What the emitter promises: known shapes, folded constants, unique names, limits, and typed errors."""

from __future__ import annotations

import numpy as np
import pytest

from certifier.errors import MalformedModel, ResourceLimitExceeded, UnsupportedNode
from certifier.limits import Limits
from certifier.reading.aten.registry import SCALAR_TYPES, shares_memory
from certifier.reading.aten.table import lower, supported
from certifier.reading.emitting import OPSET, Emitter, Ref
from tests.certifier.reading.exporting import run_graph

X = np.arange(12, dtype=np.float32).reshape(1, 3, 4)


def _emitter(**limits: int) -> tuple[Emitter, Ref]:
    emitter = Emitter(limits=Limits(**limits))  # pyright: ignore[reportArgumentType]
    return emitter, emitter.input("x", dtype="float32", shape=(1, 3, 4), batch_axis=True)


def _ref(value: object) -> Ref:
    assert isinstance(value, Ref)
    return value


def test_shapes_and_element_types_are_inferred():
    emitter, x = _emitter()
    (product,) = emitter.node(
        "MatMul", [x, emitter.constant(np.ones((4, 5), np.float32), "w")], {}, outputs=1, name="m"
    )
    assert (product.shape, product.dtype, product.rank, product.size) == ((1, 3, 5), "float32", 3, 15)
    first, second = emitter.node("Split", [x], {"axis": 2, "num_outputs": 2}, outputs=2, name="halves")
    assert first.shape == second.shape == (1, 3, 2)
    (moved,) = emitter.node("Cast", [x], {"to": 16}, outputs=1, name="cast")
    assert moved.dtype == "bfloat16"


def test_what_depends_on_constants_alone_is_a_constant():
    emitter, _ = _emitter()
    weight = emitter.constant(np.array([[1.0, 2.0]], np.float32), "w")
    (turned,) = emitter.node("Transpose", [weight], {"perm": (1, 0)}, outputs=1, name="turned")
    np.testing.assert_array_equal(emitter.value(turned), np.array([[1.0], [2.0]], np.float32))
    assert emitter.graph([turned]).nodes == ()


def test_only_what_the_outputs_need_is_kept():
    emitter, x = _emitter()
    kept = emitter.node("Relu", [x], {}, outputs=1, name="kept")[0]
    emitter.node("Add", [x, emitter.constant(X, "unread")], {}, outputs=1, name="dropped")
    graph = emitter.graph([kept])
    assert [node.name for node in graph.nodes] == ["kept"]
    assert graph.constants == {}
    assert (graph.opset, graph.outputs) == (OPSET, ("kept",))
    assert graph.nodes[0].since == 14


def test_an_input_that_is_an_output_passes_through_a_node():
    emitter, x = _emitter()
    graph = emitter.graph([x])
    assert [node.operator for node in graph.nodes] == ["Identity"]
    np.testing.assert_array_equal(run_graph(graph, [X])[0], X)


def test_numbers_in_attributes_are_those_that_are_stored():
    emitter, x = _emitter()
    output = emitter.node("LeakyRelu", [x], {"alpha": 0.1}, outputs=1, name="leaky")[0]
    assert emitter.graph([output]).nodes[0].attributes["alpha"] == float(np.float32(0.1)) != 0.1


def test_names_are_unique():
    emitter, x = _emitter()
    names = [emitter.node("Relu", [x], {}, outputs=1, name="x")[0].name for _ in range(3)]
    names.append(emitter.constant(X, "x").name)
    names.append(emitter.constant(X, "x_1").name)
    names.append("x")
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("name", ["a\0b", "a\nb", "\ud800"], ids=ascii)
def test_names_that_no_model_could_carry_are_refused(name):
    emitter, x = _emitter()
    with pytest.raises(MalformedModel, match="printable"):
        emitter.node("Relu", [x], {}, outputs=1, name=name)
    with pytest.raises(MalformedModel, match="printable"):
        emitter.constant(X, name)


@pytest.mark.parametrize("limits", [{"nodes": 2}, {"elements": 20}, {"value_elements": 10}], ids=str)
def test_limits_are_demanded(limits):
    with pytest.raises(ResourceLimitExceeded, match=next(iter(limits))):
        emitter, x = _emitter(**limits)
        for name in ("a", "b", "c"):
            emitter.node("Add", [x, emitter.constant(X, name)], {}, outputs=1, name=name)


@pytest.mark.parametrize("operator", ["ones", "zeros", "empty", "full", "arange", "tile", "expand", "repeat"])
def test_a_huge_constant_is_refused_before_it_is_made(operator):
    emitter, _ = _emitter()
    one = emitter.constant(np.ones((1, 1), np.float32), "one")
    size = [10**7, 10**7]
    arguments = {
        "full": [size, 1],
        "arange": [10**14],
        "tile": [one, size],
        "expand": [one, size],
        "repeat": [one, size],
    }
    with pytest.raises(ResourceLimitExceeded):
        lower(emitter, operator, arguments.get(operator, [size]), {}, where="here")


def test_operands_that_do_not_fit_are_malformed():
    emitter, x = _emitter()
    with pytest.raises(MalformedModel, match="m"):
        emitter.node("MatMul", [x, emitter.constant(np.ones((5, 5), np.float32), "w")], {}, outputs=1, name="m")


def test_an_output_of_unknown_size_is_refused():
    emitter, x = _emitter()
    with pytest.raises(UnsupportedNode, match="ahead of time"):
        emitter.node("NonZero", [x], {}, outputs=1, name="places")


def test_element_types_go_by_name_or_by_the_number_of_pytorch():
    emitter, x = _emitter()
    for number, name in SCALAR_TYPES.items():
        if name != "bool":
            assert _ref(lower(emitter, "to", [x, number], {}, where="a")).dtype == name
        assert _ref(lower(emitter, "to", [x], {"dtype": name}, where="b")).dtype == name
    with pytest.raises(UnsupportedNode):
        lower(emitter, "to", [x], {"dtype": 9}, where="c")


def test_operators_in_place_keep_the_element_type():
    emitter, x = _emitter()
    half = _ref(lower(emitter, "to", [x, "float16"], {}, where="half"))
    assert _ref(lower(emitter, "add", [half, x], {}, where="sum")).dtype == "float32"
    assert _ref(lower(emitter, "add_", [half, x], {}, where="sum")).dtype == "float16"


@pytest.mark.parametrize(
    ("operator", "arguments", "keywords"),
    [
        ("nonsense", [], {}),
        ("relu", [], {}),
        ("relu", ["text"], {}),
        ("add", ["x", None], {}),
        ("view", ["x", [5, -1]], {}),
        ("view", ["x", [-1, -1]], {}),
        ("view", ["x", 6], {}),
        ("permute", ["x", [0, 0, 1]], {}),
        ("transpose", ["x", 0, 3], {}),
        ("select", ["x", 1, 3], {}),
        ("select", ["x", 1, 2**70], {}),
        ("softmax", ["x", 7], {}),
        ("gelu", ["x"], {"approximate": "other"}),
        ("gelu", ["x"], {"surprise": 1}),
        ("clamp", ["x"], {}),
        ("clamp", ["x", float("nan")], {}),
        ("cat", [[]], {}),
        ("split", ["x", 0], {}),
        ("split", ["x", [1, 1], 1], {}),
        ("max_pool2d", ["x", 0], {}),
        ("avg_pool2d", ["x", 2, 0], {}),
        ("max_pool2d", ["x", 2, 2, 5], {}),
        ("adaptive_avg_pool1d", ["x", 0], {}),
        ("layer_norm", ["x", [5]], {}),
        ("pad", ["x", [1, 1], "unknown"], {}),
        ("pad", ["x", [9, 9], "reflect"], {}),
        ("constant_pad_nd", ["x", [-9, 1]], {}),
        ("upsample_nearest1d", ["x", None, None], {}),
        ("upsample_nearest1d", ["x", [0]], {}),
        ("dropout", ["x", 0.5, True], {}),
        ("arange", [0, 1, 0], {}),
        ("ones", [[-1]], {}),
        ("index", ["x", [None, "x"]], {}),
        ("norm", ["x", 3], {}),
        ("slice", ["x", 1, 0, 3, -1], {}),
        ("scaled_dot_product_attention", ["x", "x", "x", None, 0.1], {}),
    ],
    ids=str,
)
def test_arguments_that_are_not_understood_are_refused_at_their_place(operator, arguments, keywords):
    emitter, x = _emitter()
    given = [x if value == "x" else value for value in arguments]
    with pytest.raises(UnsupportedNode) as refusal:
        lower(emitter, operator, given, keywords, where="model.py:7")
    assert (refusal.value.node, refusal.value.operator) == ("model.py:7", operator)


def test_the_table_is_listed_and_knows_its_views():
    names = supported()
    assert list(names) == sorted(set(names))
    assert {"conv2d", "_convolution", "layer_norm", "scaled_dot_product_attention"} <= set(names)
    assert shares_memory("view")
    assert shares_memory("dropout")
    assert not shares_memory("clone")
    assert not shares_memory("relu_")
