"""Published architectures, exported by the installed PyTorch: one bound and one answer, whatever the format."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

from certifier.bounds.product import ProductBound
from certifier.box import Box
from certifier.certificates import Constants
from certifier.engine import Engine
from certifier.errors import UnsupportedModel, UnsupportedNode
from certifier.limits import Limits
from certifier.network import build_network, observable_model, served_model
from certifier.norms import Norms
from certifier.proof.execution import Enclosure, enclose, steps
from certifier.ranges import with_ranges
from certifier.reading.formats import read_model
from certifier.search.hints import CarriedVectors
from certifier.search.state import SearchState
from certifier.terms import PRECISIONS
from tests.architectures.catalogue import NARROW, PUBLISHED, Architecture
from tests.architectures.exporting import FORMATS, exported
from tests.architectures.transformers import BertOfTokens
from tests.building import SEAL, certify_bytes
from tests.certifier.reading.torchscript_making import members

ROWS = 2
EXPENSIVE = "ONNX, dynamo=True"
"""The exporter that takes longer than all others together: by default it writes two families, under `slow` all."""
IN_BOTH = ("ResNet-50", "ViT")


@cache
def narrow(name: str, format: str) -> bytes:
    """A narrow member of a family in one format, exported once."""
    return exported(NARROW[name].model(), NARROW[name].shape, format)


class Read:
    """An export that was read, bounded and served."""

    def __init__(self, data: bytes, architecture: Architecture, state: SearchState) -> None:
        _, graph = read_model(data, limits=Limits(), input_shape=architecture.shape)
        network = build_network(graph, limits=Limits(), cut_head=True)
        norms = Norms(state=state, seal=SEAL, carried=CarriedVectors({}), progress=lambda layer: None)
        self.network = with_ranges(network, _box(architecture, network.input_size), norms.norm_upper)
        bound = ProductBound(self.network, norms)
        self.constants: Constants = bound.constants()
        self.gains = bound.gains()
        self.state = norms.state({})

    def served(self, rows: np.ndarray) -> np.ndarray:
        """The engine's answers."""
        return Engine(served_model(self.network), self.network.input).run(rows)

    def follows(self, row: np.ndarray) -> bool:
        """Whether every value of the engine is what its own rounding allows, by finite bounds."""
        executed = Engine(observable_model(self.network), self.network.input).observe(row)
        every = list(steps(self.network, row, executed, precisions=PRECISIONS))
        return all((step.difference <= step.allowed).all() and np.isfinite(step.allowed).all() for step in every)

    def enclosure(self, rows: np.ndarray) -> Enclosure:
        """Where the engine's answers were proved to lie."""
        still = np.zeros_like(rows)
        return enclose(self.network, rows, input_radius=still, precisions=PRECISIONS, gains=self.gains)


def _box(architecture: Architecture, size: int) -> Box:
    if architecture.box is None:
        return Box.everything(size)
    return Box(lower=np.full(size, architecture.box[0]), upper=np.full(size, architecture.box[1]))


def read_one_after_the_other(exports: Iterable[bytes], architecture: Architecture) -> Iterator[Read]:
    """The exports of one model; bounds of layers that are equal bit for bit are taken over."""
    state = SearchState()
    for data in exports:
        read = Read(data, architecture, state)
        state = read.state
        yield read


def answers(architecture: Architecture, rows: torch.Tensor) -> np.ndarray:
    """What PyTorch computes in double precision, flat row by row."""
    model = copy.deepcopy(architecture.model()).double()
    with torch.no_grad():
        return np.stack([model(row.double()).numpy().reshape(-1) for row in rows])


def assert_one_bound_and_one_answer(architecture: Architecture, exports: Iterable[bytes]) -> None:
    """The formats agree to 1e-9 in every constant, and with PyTorch within the proved rounding bound."""
    rows = architecture.rows(ROWS)
    flat = rows.double().numpy().reshape(ROWS, -1)
    wanted = answers(architecture, rows)
    moved = np.abs(wanted[0] - wanted[1]).max()
    assert moved > 1e-3 * np.abs(wanted).max(), "answers that do not depend on the input prove nothing"
    stretch = np.linalg.norm(wanted[0] - wanted[1]) / np.linalg.norm(flat[0] - flat[1])
    first: Constants | None = None
    for read in read_one_after_the_other(exports, architecture):
        constants = read.constants
        first = first or constants
        assert stretch <= constants.upper < np.inf
        assert constants.upper == pytest.approx(first.upper, rel=1e-9)
        assert constants.pairs is not None and first.pairs is not None
        np.testing.assert_allclose(constants.pairs, first.pairs, rtol=1e-9)
        served, enclosure = read.served(flat), read.enclosure(flat)
        assert (np.abs(served - wanted) <= enclosure.radius).all()
        # That bound multiplies the worst case of every layer; step by step there is no room for a wrong graph.
        assert read.follows(flat[0])
        assert np.abs(served - wanted).max() <= 1e-3 * moved
        assert np.abs(enclosure.centre - wanted).max() <= 1e-4 * moved


@pytest.mark.parametrize("name", NARROW)
def test_every_format_gives_one_bound_and_the_answers_of_pytorch(name: str) -> None:
    formats = [format for format in FORMATS if format != EXPENSIVE or name in IN_BOTH]
    assert_one_bound_and_one_answer(NARROW[name], [narrow(name, format) for format in formats])


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(NARROW) - set(IN_BOTH)))
def test_the_exporter_through_torch_export_gives_the_same_bound_and_answers(name: str) -> None:
    formats = ("torch.export", EXPENSIVE)
    assert_one_bound_and_one_answer(NARROW[name], [narrow(name, format) for format in formats])


@pytest.mark.parametrize("name", ["ResNet-18", "ViT"])
def test_a_narrow_member_is_certified_whole(name: str) -> None:
    certificate = certify_bytes(narrow(name, "torch.export")).certificate
    assert certificate.self_test.passed
    assert 0 < certificate.lipschitz.lower <= certificate.lipschitz.upper < np.inf


@pytest.mark.parametrize("name", ["ViT", "BERT"])
def test_where_attention_is_bounded_the_rounding_bound_is_finite(name: str) -> None:
    architecture = NARROW[name]
    read = Read(narrow(name, "torch.export"), architecture, SearchState())
    enclosure = read.enclosure(architecture.rows(ROWS).double().numpy().reshape(ROWS, -1))
    assert np.isfinite(enclosure.radius).all()


def test_squeeze_and_excite_needs_a_box() -> None:
    """x times a gate that reads x has no global constant: over all inputs x is unbounded."""
    architecture = replace(NARROW["EfficientNet-B0"], box=None)
    data = narrow("EfficientNet-B0", "torch.export")
    with pytest.raises(UnsupportedNode, match="both depend on the input") as refusal:
        Read(data, architecture, SearchState())
    assert refusal.value.remedy is not None and "input_box" in refusal.value.remedy


def test_convolutions_into_which_the_exporter_rounded_a_normalisation_have_nearly_the_same_bound() -> None:
    """The exporters' own folding rounds the weights to single precision: another network, though hardly."""
    architecture = NARROW["ResNet-50"]
    kept = Read(narrow("ResNet-50", "ONNX, dynamo=False"), architecture, SearchState())
    for format in ("ONNX, dynamo=False, folded", "ONNX, dynamo=True, folded"):
        folded = Read(narrow("ResNet-50", format), architecture, SearchState())
        assert folded.constants.upper == pytest.approx(kept.constants.upper, rel=1e-5)
        assert len(folded.network.terms) < len(kept.network.terms)


def test_attention_of_the_fast_path_is_that_of_the_slow_one() -> None:
    """Without gradients PyTorch traces a multi-head attention as one operator."""
    architecture = NARROW["ViT"]
    model = architecture.model()
    with torch.no_grad():
        fast = exported(model, architecture.shape, "TorchScript, traced")
    slow = narrow("ViT", "TorchScript, traced")
    calls = [b"_native_multi_head_attention" in b"".join(members(data).values()) for data in (fast, slow)]
    assert calls == [True, False]
    reads = [Read(data, architecture, SearchState()) for data in (fast, slow)]
    # The packed projection of the slow path is bounded as one matrix where ranges are concerned.
    assert reads[0].constants.upper <= reads[1].constants.upper * (1 + 1e-9)
    rows = architecture.rows(ROWS).double().numpy().reshape(ROWS, -1)
    np.testing.assert_allclose(reads[0].served(rows), reads[1].served(rows), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "format", [pytest.param(name, marks=pytest.mark.slow) if name == EXPENSIVE else name for name in FORMATS]
)
def test_token_numbers_are_refused_with_advice(format: str) -> None:
    """There is no L2 ball around integers: a language model is certified from its embedded tokens on."""
    encoder = NARROW["BERT"].make()
    model = BertOfTokens(11, encoder).eval()  # pyright: ignore[reportArgumentType]
    buffer = torch.zeros(1, 8, dtype=torch.int64)
    data = exported(model, buffer, format)
    with pytest.raises(UnsupportedModel, match="type int64") as refusal:
        _, graph = read_model(data, limits=Limits(), input_shape=(1, 8))
        build_network(graph, limits=Limits(), cut_head=True)
    assert refusal.value.remedy is not None and "first floating-point tensor" in refusal.value.remedy


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_every_format_of_the_published_shape_gives_one_bound_and_the_answers_of_pytorch(name: str) -> None:
    architecture = PUBLISHED[name]
    model = architecture.model()
    # One file at a time: VGG-16 has half a gigabyte in each.
    exports = (exported(model, architecture.shape, format) for format in FORMATS)
    assert_one_bound_and_one_answer(architecture, exports)
