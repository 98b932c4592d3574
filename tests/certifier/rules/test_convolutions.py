"""Conv and ConvTranspose: the meaning of the standard, the engine within its stray, refusals by name."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from certifier.errors import CertifierError, ResourceLimitExceeded, UnsupportedNode
from certifier.operators import Adjoint, Convolution
from certifier.terms import Affine
from tests.certifier.rules.oracle import Case, case, check, evaluate


def _normal(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


def _random_geometry(rng: np.random.Generator) -> tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]:
    axes = int(rng.integers(1, 4))
    sizes = tuple(int(n) for n in rng.integers(4, 8, axes))
    taps = tuple(int(n) for n in rng.integers(1, 4, axes))
    attributes: dict[str, Any] = {"strides": rng.integers(1, 4, axes).tolist()}
    auto_pad = rng.choice(["NOTSET", "NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"])
    if auto_pad == "NOTSET":
        attributes["pads"] = rng.integers(0, 3, 2 * axes).tolist()
        attributes["dilations"] = rng.integers(1, 3, axes).tolist()
    else:
        attributes["auto_pad"] = str(auto_pad)
    return sizes, taps, attributes


@pytest.mark.parametrize("seed", range(60))
def test_conv_means_what_the_standard_says(seed: int):
    rng = np.random.default_rng(seed)
    sizes, taps, attributes = _random_geometry(rng)
    groups = int(rng.choice([1, 1, 2, 3]))
    kernel = _normal(rng, 2 * groups, 2, *taps)
    bias = _normal(rng, 2 * groups) if rng.random() < 0.5 else None
    constants = [kernel] if bias is None else [kernel, bias]
    opset = int(rng.choice([7, 11, 22]))
    given = case(
        "Conv", opset, _normal(rng, 1, 2 * groups, *sizes), *constants, attributes={"group": groups, **attributes}
    )
    if all(d == 1 for d in attributes.get("dilations", [1])):
        given = case(
            "Conv",
            opset,
            given.inputs["x"],
            *constants,
            attributes={"group": groups, "kernel_shape": list(taps), **attributes},
        )
    try:
        terms = given.terms()
    except UnsupportedNode as error:
        assert "does not fit" in str(error)
        return
    assert len(terms) == 1
    # The reference reads uneven automatic pads in more than one axis, and groups, unlike the engine.
    check(given, by_reference="auto_pad" not in attributes and groups == 1)


@pytest.mark.parametrize("seed", range(60))
def test_conv_transpose_means_what_the_standard_says(seed: int):
    rng = np.random.default_rng(1000 + seed)
    sizes, taps, attributes = _random_geometry(rng)
    axes = len(sizes)
    groups = int(rng.choice([1, 2]))
    attributes["output_padding"] = [int(rng.integers(0, s)) for s in attributes["strides"]]
    kernel = _normal(rng, 2 * groups, 3, *taps)
    constants = [kernel, _normal(rng, 3 * groups)] if rng.random() < 0.5 else [kernel]
    opset = int(rng.choice([11, 22]))
    given = case(
        "ConvTranspose",
        opset,
        _normal(rng, 1, 2 * groups, *sizes),
        *constants,
        attributes={"group": groups, **attributes},
    )
    try:
        terms = given.terms()
    except UnsupportedNode as error:
        assert "leave nothing" in str(error) or "larger than" in str(error)
        return
    (term,) = terms
    assert isinstance(term, Affine) and isinstance(term.operators[0], Adjoint)
    inner = term.operators[0].operator
    assert isinstance(inner, Convolution)
    assert inner.input_shape == term.shape[2:] and inner.output_shape == sizes and len(inner.strides) == axes
    check(given, by_reference=False)


@pytest.mark.parametrize("auto_pad", ["NOTSET", "SAME_UPPER", "SAME_LOWER"])
@pytest.mark.parametrize("wanted", [8, 9, 10, 11, 12])
def test_an_explicit_output_shape_sets_the_pads(auto_pad: str, wanted: int):
    rng = np.random.default_rng(wanted)
    given = case(
        "ConvTranspose",
        11,
        _normal(rng, 1, 2, 5),
        _normal(rng, 2, 3, 3),
        attributes={"strides": [2], "output_shape": [wanted], "auto_pad": auto_pad},
    )
    (term,) = check(given, by_reference=False)
    assert term.shape == (1, 3, wanted)


def test_conv_transpose_agrees_with_torch():
    rng = np.random.default_rng(3)
    x, kernel = _normal(rng, 1, 4, 5, 4), _normal(rng, 4, 3, 3, 2)
    given = case(
        "ConvTranspose",
        22,
        x,
        kernel,
        attributes={"strides": [2, 3], "pads": [1, 0, 1, 0], "output_padding": [1, 2], "group": 2},
    )
    (term,) = check(given, by_reference=False)
    expected = torch.conv_transpose2d(
        torch.tensor(x, dtype=torch.float64),
        torch.tensor(kernel, dtype=torch.float64),
        stride=(2, 3),
        padding=(1, 0),
        output_padding=(1, 2),
        groups=2,
    ).numpy()
    known, _ = evaluate([term], {"x": x})
    assert np.allclose(known["y"].reshape(expected.shape), expected, rtol=1e-12, atol=1e-12)


def _conv(attributes: dict[str, Any], *, kernel: tuple[int, ...] = (4, 2, 3), x: tuple[int, ...] = (1, 2, 6)) -> Case:
    return case("Conv", 22, np.ones(x, np.float32), np.ones(kernel, np.float32), attributes=attributes)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (_conv({"pads": [-1, 0]}), "negative pads"),
        (_conv({"pads": [1, 0, 0]}), "pads has 3 entries"),
        (_conv({"pads": [1, 1], "auto_pad": "SAME_UPPER"}), "exclude one another"),
        (_conv({"auto_pad": "SAME"}), "auto_pad 'SAME' is not known"),
        (_conv({"kernel_shape": [2]}), "contradicts"),
        (_conv({"group": 3}), "does not fit 2 channels"),
        (_conv({"group": 0}), "group must be positive"),
        (_conv({"strides": [0]}), "must be positive"),
        (_conv({"dilations": [4]}), "does not fit"),
        (_conv({}, x=(2, 2, 6)), "2 rows"),
        (_conv({}, x=(1, 2, 6, 6)), "1 to 3 spatial axes"),
        (_conv({}, x=(1, 2, 3, 3, 3, 3), kernel=(1, 2, 1, 1, 1, 1)), "1 to 3 spatial axes"),
        (_conv({"surprise": 1}), "'surprise' is not understood"),
    ],
)
def test_what_conv_refuses(given: Case, reason: str):
    with pytest.raises(UnsupportedNode, match=reason):
        given.terms()


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"output_padding": [2], "strides": [2]}, "must be below the stride"),
        ({"output_shape": [40], "strides": [2]}, "larger than"),
        ({"pads": [9, 9]}, "leave nothing"),
        ({"pads": [-1, 0]}, "negative pads"),
        ({"pads": [1, 1], "auto_pad": "VALID"}, "exclude one another"),
        ({"strides": [4], "auto_pad": "SAME_UPPER"}, "larger than"),
    ],
)
def test_what_conv_transpose_refuses(attributes: dict[str, Any], reason: str):
    given = case(
        "ConvTranspose", 22, np.ones((1, 2, 6), np.float32), np.ones((2, 4, 3), np.float32), attributes=attributes
    )
    with pytest.raises(UnsupportedNode, match=reason):
        given.terms()


def test_uneven_automatic_pads_of_version_1_are_refused():
    given = case(
        "ConvTranspose",
        7,
        np.ones((1, 1, 3), np.float32),
        np.ones((1, 1, 3), np.float32),
        attributes={"strides": [2], "output_shape": [6]},
    )
    with pytest.raises(UnsupportedNode, match="version 1"):
        given.terms()


def test_a_live_kernel_is_refused_by_name():
    x, kernel = np.ones((1, 2, 6), np.float32), np.ones((4, 2, 3), np.float32)
    given = Case(
        operator="Conv",
        opset=22,
        inputs={"x": x, "w": kernel},
        live=("x", "w"),
        outputs=("y",),
        attributes={},
    )
    with pytest.raises(UnsupportedNode, match=r"the kernel W \(input 1, 'w'\) must be constant"):
        given.terms()
    given = Case(operator="Conv", opset=22, inputs={"x": x, "w": kernel}, live=("w",), outputs=("y",), attributes={})
    with pytest.raises(UnsupportedNode):
        given.terms()


def test_weights_that_are_not_finite_are_refused():
    kernel = np.ones((4, 2, 3), np.float32)
    kernel[0, 0, 0] = np.nan
    with pytest.raises(UnsupportedNode, match="NaN or infinite"):
        case("Conv", 22, np.ones((1, 2, 6), np.float32), kernel).terms()


def test_an_output_beyond_the_limits_is_refused_before_it_is_made():
    given = case(
        "ConvTranspose",
        22,
        np.ones((1, 1, 2), np.float32),
        np.ones((1, 1, 1), np.float32),
        attributes={"strides": [2**30]},
    )
    with pytest.raises(ResourceLimitExceeded) as caught:
        given.terms()
    assert isinstance(caught.value, CertifierError) and caught.value.resource == "value_elements"
