"""Choosing outputs: one, several joined, or a refusal that names what there is."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from certifier import CertifyOptions, Limits, Predictor, Seal, SearchState, certify
from certifier.errors import InvalidInput, UnsupportedNode

WEIGHTS = np.array([[3.0, 0.0], [0.0, 4.0]], dtype=np.float32)


def two_headed(second: str = "Relu") -> bytes:
    """x -> (W x, second(x))."""
    nodes = [helper.make_node("MatMul", ["x", "w"], ["scores"]), helper.make_node(second, ["x"], ["boxes"])]
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 2]) for name in ("scores", "boxes")]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 2])]
    graph = helper.make_graph(nodes, "two heads", inputs, outputs, [numpy_helper.from_array(WEIGHTS, "w")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString()


def certified(data: bytes, **options: object):
    return certify(
        data,
        name="m",
        version=1,
        options=CertifyOptions.model_validate(options),
        limits=Limits(),
        state=SearchState(),
        seal=Seal(bytes(32)),
        progress=lambda news: None,
    )


def test_several_outputs_are_joined_into_one_vector() -> None:
    result = certified(two_headed())
    bound = result.certificate.lipschitz
    # The joint map x -> (W x, relu x) stretches by sqrt(4^2 + 1) at most, and by exactly that along the second axis.
    assert np.sqrt(17) <= bound.upper <= np.sqrt(17) * (1 + 1e-8)
    assert bound.lower <= np.sqrt(17) * (1 + 1e-9)
    assert result.certificate.task == "regression" and result.certificate.classes == 4
    predictor = Predictor(certificate=result.certificate, served_model=result.served_model, constants=result.constants)
    (row,) = predictor.predict(np.array([[1.0, -2.0]]), epsilon=None, preprocessing=None)
    assert row.logits == [3.0, -8.0, 1.0, 0.0]


def test_one_output_is_chosen_by_name_and_the_rest_is_not_looked_at() -> None:
    result = certified(two_headed("Exp"), outputs=["scores"])
    assert result.certificate.task == "classification"
    assert 4.0 <= result.certificate.lipschitz.upper <= 4.0 * (1 + 1e-8)
    assert any("boxes" in note for note in result.certificate.notes)
    with pytest.raises(UnsupportedNode, match="Exp"):
        certified(two_headed("Exp"))


@pytest.mark.parametrize("outputs", [["nothing"], [], ["scores", "scores"]])
def test_names_that_are_no_choice_are_refused(outputs: list[str]) -> None:
    with pytest.raises(InvalidInput, match="outputs"):
        certified(two_headed(), outputs=outputs)
