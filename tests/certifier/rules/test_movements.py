"""Operators that move numbers: meaning, exactness, repeats, offsets, and what they refuse."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

from certifier.errors import ResourceLimitExceeded, UnsupportedNode
from certifier.graph import Node
from certifier.limits import Limits
from certifier.operators import Identity, Placed, Rearrange
from certifier.rules.registry import Site, find
from certifier.terms import PRECISIONS, Affine
from tests.certifier.rules.oracle import Case, case, check, evaluate


def _normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def _ints(*values: Any) -> np.ndarray:
    return np.array(values, dtype=np.int64)


X = _normal(0, 1, 3, 4, 5)
DEEP = _normal(1, 1, 8, 2, 3)
WIDE = _normal(2, 1, 2, 4, 6)

MOVEMENTS: dict[str, Case] = {
    **{f"flatten {axis}": case("Flatten", 13, X, attributes={"axis": axis}) for axis in (0, 1, 2, -1, 4)},
    "flatten 7": case("Flatten", 7, X),
    "flatten newest": case("Flatten", 25, X),
    "reshape": case("Reshape", 14, X, _ints(0, -1, 5)),
    "reshape to one row": case("Reshape", 7, X, _ints(1, 60)),
    "reshape allowzero": case("Reshape", 14, X, _ints(5, 12), attributes={"allowzero": 1}),
    "transpose": case("Transpose", 13, X, attributes={"perm": [0, 2, 3, 1]}),
    "transpose of all": case("Transpose", 7, X),
    "transpose of the batch axis": case("Transpose", 25, X, attributes={"perm": [3, 0, 2, 1]}),
    "squeeze": case("Squeeze", 13, X, _ints(0)),
    "squeeze all": case("Squeeze", 13, X),
    "squeeze 11": case("Squeeze", 11, _normal(3, 1, 3, 1, 2), attributes={"axes": [-2]}),
    "unsqueeze": case("Unsqueeze", 13, X, _ints(0, -1)),
    "unsqueeze 11": case("Unsqueeze", 11, X, attributes={"axes": [2, 5]}),
    "identity": case("Identity", 16, X),
    "dropout 7": case("Dropout", 7, X, attributes={"ratio": 0.3}),
    "dropout 13": case("Dropout", 13, X, np.array(0.5, np.float32), np.array(False)),
    "dropout without flag": case("Dropout", 22, X, np.array(0.5, np.float32)),
    "cast": case("Cast", 13, X, attributes={"to": 1}),
    "cast 7": case("Cast", 7, X, attributes={"to": 1}),
    "cast like": case("CastLike", 19, X, np.zeros(1, np.float32)),
    "slice": case("Slice", 13, X, _ints(3, -1, 0), _ints(-100, -4, 2), _ints(2, 3, 1), _ints(-2, -1, 1)),
    "slice far": case("Slice", 11, X, _ints(-100, 1), _ints(2**62, 2**31)),
    "slice 9": case("Slice", 9, X, attributes={"starts": [1, 0], "ends": [1000, -1], "axes": [1, 3]}),
    "slice backwards": case("Slice", 13, X, _ints(-1), _ints(-(2**63) + 1), _ints(3), _ints(-1)),
    "split 11": case("Split", 11, X, outputs=("a", "b", "c"), attributes={"axis": 1}),
    "split 11 sizes": case("Split", 11, X, outputs=("a", "b"), attributes={"axis": -1, "split": [2, 3]}),
    "split 13": case("Split", 13, X, _ints(1, 3, 1), outputs=("a", "b", "c"), attributes={"axis": -1}),
    "split 18": case("Split", 18, X, outputs=("a", "b"), attributes={"axis": 3, "num_outputs": 2}),
    "gather": case("Gather", 13, X, _ints(1, -1, 1), attributes={"axis": 2}),
    "gather scalar": case("Gather", 13, X, np.array(2), attributes={"axis": 1}),
    "gather matrix": case("Gather", 11, X, np.array([[0, 1], [3, -4]], np.int32), attributes={"axis": 2}),
    "gather the row": case("Gather", 7, X, np.array(0)),
    "gather nd": case("GatherND", 13, X, np.array([[0, 1], [0, 2]])),
    "gather nd batch": case(
        "GatherND", 13, X, np.array([[[[1], [2]], [[0], [0]], [[3], [1]]]]), attributes={"batch_dims": 2}
    ),
    "expand": case("Expand", 13, _normal(4, 1, 3, 1, 5), _ints(2, 1, 4, 1)),
    "expand by an axis": case("Expand", 8, _normal(4, 1, 3), _ints(2, 1, 1)),
    "tile": case("Tile", 13, X, _ints(1, 2, 1, 3)),
    "depth to space": case("DepthToSpace", 13, DEEP, attributes={"blocksize": 2}),
    "depth to space 7": case("DepthToSpace", 7, DEEP, attributes={"blocksize": 2}),
    "depth to space CRD": case("DepthToSpace", 11, DEEP, attributes={"blocksize": 2, "mode": "CRD"}),
    "space to depth": case("SpaceToDepth", 13, WIDE, attributes={"blocksize": 2}),
    "trilu": case("Trilu", 14, _normal(5, 1, 4, 5), np.array(1)),
    "trilu lower": case("Trilu", 14, _normal(5, 1, 4, 5), np.array(-1), attributes={"upper": 0}),
    "trilu without k": case("Trilu", 14, _normal(5, 1, 4, 5)),
    **{
        f"pad {mode}": case(
            "Pad", 19, X, _ints(0, 1, 2, 0, 0, 0, 1, 3), np.array(1.5, np.float32), attributes={"mode": mode}
        )
        for mode in ("constant", "reflect", "edge", "wrap")
    },
    "pad default value": case("Pad", 13, X, _ints(0, 1, 2, 0, 0, 0, 1, 3)),
    "pad axes": case("Pad", 18, X, _ints(1, 2, 3, 0), None, _ints(-1, 1)),
    "pad 7": case("Pad", 7, X, attributes={"pads": [0, 1, 2, 0, 0, 0, 1, 2], "value": 2.5}),
}
ENGINE_ONLY = {
    # The reference demands equal sizes along the other axes, and cannot crop.
    "gather elements": case(
        "GatherElements", 13, X, np.random.default_rng(6).integers(-4, 4, (1, 2, 6, 3)), attributes={"axis": 2}
    ),
    "pad that crops": case("Pad", 18, X, _ints(-1, 2, 1, -2), None, _ints(2, 3)),
    "pad that only crops": case("Pad", 18, X, _ints(-1, 0, 0, -2), None, _ints(2, 3), attributes={"mode": "edge"}),
}
REFERENCE_ONLY = {
    # Newer than what the engine's kernels know.
    "space to depth CRD": case("SpaceToDepth", 28, WIDE, attributes={"blocksize": 2, "mode": "CRD"}),
    "space to depth DCR": case("SpaceToDepth", 28, WIDE, attributes={"blocksize": 2, "mode": "DCR"}),
    "depth to space 28": case("DepthToSpace", 28, DEEP, attributes={"blocksize": 2, "mode": "CRD"}),
}


@pytest.mark.parametrize("name", MOVEMENTS)
def test_a_movement_means_what_the_standard_says(name: str):
    _assert_exact(check(MOVEMENTS[name]))


@pytest.mark.parametrize("name", ENGINE_ONLY)
def test_a_movement_does_what_the_engine_does(name: str):
    _assert_exact(check(ENGINE_ONLY[name], by_reference=False))


@pytest.mark.parametrize("name", REFERENCE_ONLY)
def test_a_newest_movement_does_what_the_reference_does(name: str):
    _assert_exact(check(REFERENCE_ONLY[name], by_engine=False))


def _assert_exact(terms: tuple[Any, ...]) -> None:
    for term in terms:
        assert isinstance(term, Affine)
        assert all(isinstance(operator, (Identity, Rearrange)) for operator in term.operators)
        assert term.is_exact or term.offset is not None


def test_values_pass_unchanged_to_the_last_bit():
    for name in ("transpose", "slice", "pad reflect", "tile", "gather"):
        given = MOVEMENTS[name]
        known, radii = evaluate(given.terms(), {"x": given.inputs["x"]})
        executed = given.engine()["y"]
        assert (known["y"].reshape(executed.shape) == executed).all()
        assert (radii["y"] == 0).all()


def test_every_version_that_a_rule_claims_exists():
    known = {(s.name, s.since_version) for s in onnx.defs.get_all_schemas_with_history() if s.domain == ""}
    for given in (*MOVEMENTS.values(), *ENGINE_ONLY.values(), *REFERENCE_ONLY.values()):
        entry = find(given.node())
        assert all((entry.operator, version) in known for version in entry.since)
        oldest = 7
        reachable = {
            onnx.defs.get_schema(entry.operator, opset).since_version
            for opset in range(oldest, onnx.defs.onnx_opset_version() + 1)
            if any(name == entry.operator and version <= opset for name, version in known)
        }
        assert reachable <= set(entry.since), (entry.operator, reachable - set(entry.since))


@pytest.mark.parametrize(
    ("name", "repeats"), [("gather", 2), ("expand", 8), ("tile", 6), ("pad edge", None), ("pad wrap", None)]
)
def test_repeated_entries_count_as_often_as_they_are_read(name: str, repeats: int | None):
    (term,) = MOVEMENTS[name].terms()
    assert isinstance(term, Affine)
    operator = term.operators[0]
    assert isinstance(operator, Rearrange)
    matrix = operator.forward(np.eye(operator.columns)).T
    norm = np.linalg.norm(matrix, 2)
    assert norm == pytest.approx(np.sqrt(operator.counts.max()), rel=1e-12)
    assert operator.counts.max() == repeats if repeats else operator.counts.max() > 1


def _concat(inputs: dict[str, np.ndarray], names: tuple[str, ...], live: tuple[str, ...], axis: int) -> Site:
    node = Node(
        name="n", operator="Concat", domain="", since=13, inputs=names, outputs=("y",), attributes={"axis": axis}
    )
    return Site(
        node=node,
        shapes={name: inputs[name].shape for name in live},
        constants={name: value for name, value in inputs.items() if name not in live},
        dtype="float32",
        limits=Limits(),
    )


@pytest.mark.parametrize("axis", [1, 2, -1])
def test_concat_stacks_live_and_constant_parts(axis: int):
    inputs = {"x": _normal(7, 1, 2, 3), "c": _normal(8, 1, 2, 3), "y": _normal(9, 1, 2, 3)}
    given = Case(operator="Concat", opset=13, inputs=inputs, live=("x", "y"), outputs=("z",), attributes={"axis": axis})
    (term,) = check(given)
    assert isinstance(term, Affine) and term.arrangement == "stack" and term.sources == ("x", "y")
    rows = [np.flatnonzero(np.asarray(o.forward(np.ones((1, o.columns)))[0])) for o in term.operators]
    assert not set(rows[0]) & set(rows[1])
    assert term.offset is not None and np.count_nonzero(term.offset) == 6


def test_concat_reads_one_value_twice():
    inputs = {"x": _normal(7, 1, 2, 3)}
    site = _concat(inputs, ("x", "x"), ("x",), 1)
    (term,) = find(site.node).apply(site)
    assert isinstance(term, Affine) and term.sources == ("x", "x") and term.offset is None and term.is_exact
    value = inputs["x"].reshape(1, -1)
    assert (term.evaluate(value, value) == np.tile(value, 2)).all()
    assert term.arrangement == "stack" and all(isinstance(operator, Placed) for operator in term.operators)


def test_concat_refuses_shapes_that_do_not_fit():
    inputs = {"x": _normal(7, 1, 2, 3), "y": _normal(7, 1, 2, 4)}
    site = _concat(inputs, ("x", "y"), ("x", "y"), 1)
    with pytest.raises(UnsupportedNode, match="do not fit"):
        find(site.node).apply(site)


def _cast(dtype: str, code: int) -> Affine:
    node = Node(name="n", operator="Cast", domain="", since=13, inputs=("x",), outputs=("y",), attributes={"to": code})
    site = Site(node=node, shapes={"x": (1, 3)}, constants={}, dtype=dtype, limits=Limits())
    (term,) = find(node).apply(site)
    assert isinstance(term, Affine)
    return term


@pytest.mark.parametrize(
    ("source", "code", "target", "roundings"),
    [
        ("float32", 11, "float64", 0),
        ("float64", 1, "float32", 1),
        ("float32", 10, "float16", 1),
        ("float32", 16, "bfloat16", 1),
        ("float16", 1, "float32", 0),
        ("bfloat16", 11, "float64", 0),
        ("float16", 16, "bfloat16", 1),
        ("bfloat16", 10, "float16", 1),
        ("float32", 1, "float32", 0),
    ],
)
def test_casts_record_their_type_and_round_once_when_they_narrow(source: str, code: int, target: str, roundings: int):
    term = _cast(source, code)
    assert (term.dtype, term.roundings) == (target, roundings)
    assert term.is_exact == (roundings == 0)


def test_a_narrowing_cast_strays_by_its_rounding():
    term = _cast("float64", 1)
    x = np.random.default_rng(0).standard_normal((200, 3)) * 10.0 ** np.arange(-30, 30, 20)
    stray = term.stray([x], [np.zeros_like(x)], x, PRECISIONS[term.dtype])
    moved = abs(x.astype(np.float32).astype(np.float64) - x)
    assert (moved <= stray).all() and (moved > 0).any() and (stray <= 2.0**-20 * abs(x) + 1e-36).all()


@pytest.mark.parametrize("code", [2, 3, 6, 7, 9, 17, 0])
def test_casts_to_anything_but_floats_are_discontinuous(code: int):
    with pytest.raises(UnsupportedNode, match="discontinuous"):
        _cast("float32", code)


REFUSED: list[tuple[Case, str]] = [
    (case("Dropout", 13, X, np.array(0.5, np.float32), np.array(True)), "training_mode"),
    (case("Flatten", 9, X, attributes={"axis": -1}), "version 11"),
    (case("Flatten", 13, X, attributes={"axis": 5}), "outside of rank"),
    (case("Reshape", 14, X, _ints(7, -1)), "cannot become"),
    (case("Reshape", 14, X, _ints(-1, -1)), "is no shape"),
    (case("Reshape", 14, X, _ints(1, 1, 1, 1, 0)), "keeps axis 4"),
    (case("Reshape", 14, X, _ints(0, 60), attributes={"allowzero": 1}), "cannot become"),
    (case("Transpose", 13, X, attributes={"perm": [0, 1, 1, 2]}), "does not permute"),
    (case("Squeeze", 13, X, _ints(1)), "not all of size 1"),
    (case("Unsqueeze", 13, X, _ints(0, 0)), "twice"),
    (case("Slice", 13, X, _ints(2), _ints(2), _ints(1)), "everything"),
    (case("Slice", 13, X, _ints(0), _ints(2), _ints(1), _ints(0)), "do not fit together"),
    (case("Slice", 13, X, _ints(0, 0), _ints(2, 2), _ints(1, -3)), "twice"),
    (case("Split", 11, X, outputs=("a", "b"), attributes={"axis": 1}), "equal parts"),
    (case("Split", 13, X, _ints(1, 1), outputs=("a", "b"), attributes={"axis": 1}), "do not split"),
    (case("Split", 18, X, outputs=("a", "b", "c", "d"), attributes={"axis": 3, "num_outputs": 4}), "do not split"),
    (case("Gather", 13, X, _ints(4), attributes={"axis": 2}), "outside of an axis of 4"),
    (case("Gather", 13, X, _ints(-5), attributes={"axis": 2}), "outside of an axis of 4"),
    (case("GatherND", 13, X, np.array([[0, 3]])), "outside of an axis of 3"),
    (case("GatherElements", 13, X, _ints(0, 1)), "do not fit"),
    (case("Tile", 13, X, _ints(1, 2)), "do not fit"),
    (case("DepthToSpace", 13, X, attributes={"blocksize": 2}), "do not fill"),
    (case("SpaceToDepth", 13, X, attributes={"blocksize": 3}), "do not divide"),
    (case("DepthToSpace", 13, DEEP, attributes={"blocksize": 2, "mode": "XYZ"}), "not known"),
    (case("Pad", 13, X, _ints(0, 0, 4, 0, 0, 0, 0, 0), attributes={"mode": "reflect"}), "beyond the input"),
    (case("Pad", 19, X, _ints(0, 0, 5, 0, 0, 0, 0, 0), attributes={"mode": "wrap"}), "beyond the input"),
    (case("Pad", 13, X, _ints(0, 0, 1, 0, 0, 0, 0, 0), attributes={"mode": "wrap"}), "not known as of version 13"),
    (case("Pad", 13, X, _ints(0, 0, -1, 1, 0, 0, 0, 0), attributes={"mode": "edge"}), "negative pads"),
    (case("Pad", 13, X, _ints(0, 0, -2, 0, 0, 0, -2, 0)), "leave nothing"),
    (case("Pad", 13, X, _ints(0, 0, 1)), "do not fit"),
    (case("Pad", 13, X, _ints(*[0] * 7, 1), np.array(np.inf, np.float32)), "infinite"),
]


@pytest.mark.parametrize(("given", "reason"), REFUSED, ids=[f"{c.operator} {r}" for c, r in REFUSED])
def test_what_movements_refuse(given: Case, reason: str):
    with pytest.raises(UnsupportedNode, match=reason):
        given.terms()


@pytest.mark.parametrize("operator", ["Reshape", "Gather", "Expand", "Tile"])
def test_live_shapes_and_indices_are_refused_by_name(operator: str):
    given = Case(
        operator=operator,
        opset=13,
        inputs={"x": X, "i": _ints(1, 1, 1, 1)},
        live=("x", "i"),
        outputs=("y",),
        attributes={},
    )
    with pytest.raises(UnsupportedNode, match=r"input 1, 'i'\) must be constant"):
        given.terms()


@pytest.mark.parametrize(
    "given",
    [
        case("Tile", 13, X, _ints(1, 2**20, 2**20, 1)),
        case("Expand", 13, _normal(0, 1, 1), _ints(2**20, 2**20)),
        case("Pad", 13, X, _ints(0, 0, 2**40, 0, 0, 0, 0, 0)),
    ],
    ids=["tile", "expand", "pad"],
)
def test_amplified_outputs_are_refused_before_they_are_made(given: Case):
    with pytest.raises(ResourceLimitExceeded):
        given.terms()


@pytest.mark.parametrize("operator", ["ReverseSequence", "EyeLike"])
def test_operators_without_a_rule_are_refused_by_name(operator: str):
    node = Node(name="n", operator=operator, domain="", since=10, inputs=("x",), outputs=("y",), attributes={})
    with pytest.raises(UnsupportedNode, match=operator):
        find(node)
