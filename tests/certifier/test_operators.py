"""Laws that every linear map obeys: exact adjoints, |A| entrywise, honest fan-ins, scipy's and torch's results."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import sparse, stats

from certifier.operators import (
    Adjoint,
    Composed,
    Convolution,
    Diagonal,
    Identity,
    Kronecker,
    Operator,
    Rearrange,
    Sum,
    compose,
    dense,
)


def _integers(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.integers(-4, 5, shape).astype(np.float64)


def _convolution(
    rng: np.random.Generator,
    sizes: tuple[int, ...],
    taps: tuple[int, ...],
    *,
    strides: tuple[int, ...],
    before: tuple[int, ...],
    after: tuple[int, ...],
    dilations: tuple[int, ...],
    groups: int,
) -> Convolution:
    return Convolution(
        _integers(rng, 2 * groups, 3, *taps),
        input_shape=sizes,
        strides=strides,
        pads_before=before,
        pads_after=after,
        dilations=dilations,
        groups=groups,
        weight_error=0.0,
    )


def _convolutions() -> dict[str, Convolution]:
    rng = np.random.default_rng(3)
    return {
        "plain": _convolution(rng, (6,), (3,), strides=(1,), before=(0,), after=(0,), dilations=(1,), groups=1),
        "1d": _convolution(rng, (9,), (3,), strides=(2,), before=(2,), after=(1,), dilations=(2,), groups=2),
        "1d tail unread": _convolution(
            rng, (8,), (2,), strides=(3,), before=(0,), after=(0,), dilations=(1,), groups=1
        ),
        "2d": _convolution(
            rng, (5, 6), (3, 2), strides=(2, 1), before=(1, 0), after=(0, 2), dilations=(1, 3), groups=2
        ),
        "2d groups": _convolution(
            rng, (4, 4), (3, 3), strides=(1, 2), before=(1, 2), after=(1, 1), dilations=(1, 1), groups=3
        ),
        "3d": _convolution(
            rng,
            (3, 4, 3),
            (2, 2, 1),
            strides=(1, 2, 2),
            before=(1, 0, 0),
            after=(0, 1, 0),
            dilations=(1, 2, 1),
            groups=2,
        ),
    }


def _operators() -> dict[str, Operator]:
    rng = np.random.default_rng(5)
    convolutions = _convolutions()
    thin = sparse.csr_array(_integers(rng, 5, 4) * (rng.random((5, 4)) < 0.4))
    repeated = Rearrange(np.array([3, 0, -1, 3, 2, 3]), columns=5)
    found: dict[str, Operator] = {
        "identity": Identity(4),
        "dense": dense(_integers(rng, 3, 5)),
        "kronecker": Kronecker(_integers(rng, 3, 5), before=2, after=3, weight_error=0.0),
        "kronecker before": Kronecker(_integers(rng, 3, 5), before=4, after=1, weight_error=0.0),
        "kronecker sparse": Kronecker(thin, before=2, after=3, weight_error=0.0),
        "kronecker sparse last": Kronecker(thin, before=3, after=1, weight_error=0.0),
        "diagonal": Diagonal(_integers(rng, 6), weight_error=0.0),
        "permutation": Rearrange(rng.permutation(7), columns=7),
        "crop and pad": Rearrange(np.array([4, -1, 2, 0, -1]), columns=6),
        "repeats": repeated,
        "sum": Sum(
            [
                dense(_integers(rng, 4, 5)),
                dense(_integers(rng, 4, 5)),
                Rearrange(np.array([0, 1, 1, -1]), columns=5),
            ]
        ),
        "composed": Composed([dense(_integers(rng, 5, 3)), repeated, Diagonal(_integers(rng, 6), weight_error=0.0)]),
    }
    for name, convolution in convolutions.items():
        found[f"convolution {name}"] = convolution
        found[f"transposed {name}"] = Adjoint(convolution)
    return found


OPERATORS = _operators()
every_operator = pytest.mark.parametrize("operator", OPERATORS.values(), ids=OPERATORS.keys())


def _matrix(operator: Operator) -> np.ndarray:
    return operator.forward(np.eye(operator.columns)).T


@every_operator
def test_the_adjoint_is_exact_on_small_integers(operator: Operator):
    forward, backward = _matrix(operator), operator.adjoint(np.eye(operator.rows))
    assert forward.shape == (operator.rows, operator.columns)
    assert (forward == backward).all()
    assert abs(forward).max() >= 1


@every_operator
def test_batches_are_rows_apart(operator: Operator):
    rng = np.random.default_rng(1)
    x, y = _integers(rng, 3, operator.columns), _integers(rng, 2, operator.rows)
    assert (operator.forward(x) == x @ _matrix(operator).T).all()
    assert (operator.adjoint(y) == y @ _matrix(operator)).all()
    assert (operator.forward(x)[1:2] == operator.forward(x[1:2])).all()


@every_operator
def test_absolute_is_entrywise(operator: Operator):
    magnitude, absolute = abs(_matrix(operator)), _matrix(operator.absolute())
    if isinstance(operator, (Sum, Composed)):
        assert (absolute >= magnitude).all() and (absolute <= 16 * np.maximum(magnitude, 16)).all()
    else:
        assert (absolute == magnitude).all()


@every_operator
def test_fan_in_counts_the_products_of_an_entry(operator: Operator):
    if isinstance(operator, (Composed, Sum)):
        assert operator.fan_in >= max(part.fan_in for part in operator.parts)
        assert operator.fan_out >= max(part.fan_out for part in operator.parts)
        return
    nonzero = (
        np.count_nonzero(_matrix(operator), axis=1).max(),
        np.count_nonzero(_matrix(operator), axis=0).max(),
    )
    moves = isinstance(operator, (Identity, Rearrange))
    assert operator.fan_in >= nonzero[0] or (moves and operator.fan_in == 0 and nonzero[0] <= 1)
    assert operator.fan_out >= nonzero[1] or (moves and operator.fan_out == 0 and nonzero[1] <= 1)
    assert operator.fan_in <= max(operator.columns, 1)


@every_operator
def test_digests_tell_maps_apart_and_nothing_else(operator: Operator):
    again = _operators()
    assert sorted(other.digest for other in again.values()) == sorted(o.digest for o in OPERATORS.values())
    same = [name for name, other in again.items() if other.digest == operator.digest]
    assert len(same) == 1


def test_digests_depend_on_every_field_of_a_convolution():
    base = _convolutions()["2d"]
    other = base.with_kernel(base.kernel, weight_error=1e-16)
    nudged = base.with_kernel(np.nextafter(base.kernel, np.inf), weight_error=0.0)
    assert len({base.digest, other.digest, nudged.digest}) == 3


@pytest.mark.parametrize("name", list(_convolutions()))
def test_a_convolution_is_what_torch_computes(name: str):
    operator = _convolutions()[name]
    axes = len(operator.input_shape)
    rng = np.random.default_rng(2)
    x = _integers(rng, 2, operator.channels_in, *operator.input_shape)
    pads = [side for i in reversed(range(axes)) for side in (operator.pads_before[i], operator.pads_after[i])]
    run = (torch.conv1d, torch.conv2d, torch.conv3d)[axes - 1]
    expected = run(
        torch.nn.functional.pad(torch.tensor(x), pads),
        torch.tensor(operator.kernel),
        stride=operator.strides,
        dilation=operator.dilations,
        groups=operator.groups,
    ).numpy()
    assert expected.shape[2:] == operator.output_shape
    assert (operator.forward(x.reshape(2, -1)) == expected.reshape(2, -1)).all()


def test_a_transposed_convolution_is_what_torch_computes():
    rng = np.random.default_rng(4)
    weights = _integers(rng, 4, 3, 3, 2)
    x = _integers(rng, 1, 4, 5, 4)
    expected = torch.conv_transpose2d(
        torch.tensor(x), torch.tensor(weights), stride=(2, 3), padding=(1, 0), output_padding=(1, 2), groups=2
    ).numpy()
    back = Convolution(
        weights,
        input_shape=expected.shape[2:],
        strides=(2, 3),
        pads_before=(1, 0),
        pads_after=(0, 0),
        dilations=(1, 1),
        groups=2,
        weight_error=0.0,
    )
    assert back.output_shape == (5, 4)
    assert (Adjoint(back).forward(x.reshape(1, -1)) == expected.reshape(1, -1)).all()


def test_kroneckers_are_what_numpy_computes():
    for name in ("kronecker", "kronecker before", "kronecker sparse", "kronecker sparse last"):
        operator = OPERATORS[name]
        assert isinstance(operator, Kronecker)
        expected = np.kron(np.kron(np.eye(operator.before), operator.dense()), np.eye(operator.after))
        assert (_matrix(operator) == expected).all()


def test_compositions_and_sums_are_matrix_products_and_sums():
    rng = np.random.default_rng(8)
    first, second = dense(_integers(rng, 4, 3)), dense(_integers(rng, 5, 4))
    assert (_matrix(Composed([first, second])) == second.dense() @ first.dense()).all()
    assert (_matrix(Sum([first, first])) == 2 * first.dense()).all()
    nested = compose([compose([Identity(3), first]), Identity(4), compose([second, Identity(5)])])
    assert isinstance(nested, Composed) and nested.parts == (first, second)
    assert compose([Identity(3)]).columns == 3
    with pytest.raises(ValueError, match="cannot compose"):
        Composed([first, first])
    with pytest.raises(ValueError, match="same spaces"):
        Sum([first, second])


def test_weight_errors_compose_upward():
    rng = np.random.default_rng(9)
    parts = [Diagonal(_integers(rng, 3), weight_error=error) for error in (2.0**-50, 2.0**-52, 0.0)]
    total = (1 + 2.0**-50) * (1 + 2.0**-52) - 1
    assert total <= Composed(parts).weight_error <= 1.01 * total
    assert Composed(parts[2:]).weight_error == 0.0
    assert Sum(parts).weight_error >= 2.0**-50


def test_rearrangements_count_their_repeats():
    repeated = OPERATORS["repeats"]
    assert isinstance(repeated, Rearrange)
    gram = _matrix(repeated).T @ _matrix(repeated)
    assert (gram == np.diag(repeated.counts)).all()
    assert not repeated.is_permutation
    shuffled = OPERATORS["permutation"]
    assert isinstance(shuffled, Rearrange) and shuffled.is_permutation


def test_impossible_convolutions_are_refused():
    kernel = np.ones((1, 1, 3))
    for size, before in ((2, 0), (4, -1)):
        with pytest.raises(ValueError, match=r"kernel|pads"):
            Convolution(
                kernel,
                input_shape=(size,),
                strides=(1,),
                pads_before=(before,),
                pads_after=(0,),
                dilations=(1,),
                groups=1,
                weight_error=0.0,
            )


def test_diagonals_know_their_channels():
    constant = Diagonal(np.repeat([2.0, 3.0, 5.0], 4), weight_error=0.0)
    assert constant.per_channel(3) is not None and constant.per_channel(3).tolist() == [2.0, 3.0, 5.0]  # pyright: ignore
    assert constant.per_channel(2) is None and constant.per_channel(5) is None and constant.per_channel(0) is None


@every_operator
def test_orthogonal_inputs_never_gain_more_than_the_frobenius_norm(operator: Operator):
    matrix = _matrix(operator)
    if min(matrix.shape) < 2:
        pytest.skip("no rotation of one axis")
    rotation = stats.ortho_group.rvs(matrix.shape[1], random_state=0)
    rotated = operator.forward(rotation)
    assert np.linalg.norm(rotated) == pytest.approx(np.linalg.norm(matrix), rel=1e-12)


@pytest.mark.parametrize("seed", range(12))
def test_the_adjoint_of_a_convolution_is_exact_where_most_rows_are_zero(seed):
    """Single entries, bands of rows and nothing at all: only rows that are used are followed."""
    generator = np.random.default_rng(seed)
    axes = 1 + seed % 3
    convolution = Convolution(
        generator.integers(-4, 5, (4, 2, *generator.integers(1, 4, axes))).astype(np.float64),
        input_shape=tuple(int(size) for size in generator.integers(5, 8, axes)),
        strides=tuple(int(stride) for stride in generator.integers(1, 3, axes)),
        pads_before=tuple(int(pad) for pad in generator.integers(0, 3, axes)),
        pads_after=tuple(int(pad) for pad in generator.integers(0, 3, axes)),
        dilations=tuple(int(dilation) for dilation in generator.integers(1, 3, axes)),
        groups=1 + seed % 2,
        weight_error=0.0,
    )
    matrix = convolution.forward(np.eye(convolution.columns)).T
    assert (convolution.adjoint(np.eye(convolution.rows)) == matrix).all()
    for row in range(0, convolution.rows, max(1, convolution.rows // 20)):
        unit = np.eye(1, convolution.rows, row)
        assert (convolution.adjoint(3.0 * unit) == 3.0 * matrix[row]).all()
    assert (convolution.adjoint(np.zeros((2, convolution.rows))) == 0.0).all()
