"""Quantised models are refused in every format, with one reason and the remedy that helps."""

from __future__ import annotations

import warnings

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from certifier.errors import CertifierError
from certifier.reading.quantised import REMEDY, STANDARD, is_quantised
from certifier.rules import registry
from tests.building import certify_bytes
from tests.certifier.reading.exporting import Applied, exported
from tests.certifier.reading.torchscript_making import saved, traced

SCALE, ZERO = (
    numpy_helper.from_array(np.array(0.5, np.float32), "s"),
    numpy_helper.from_array(np.array(3, np.uint8), "z"),
)
WEIGHTS = numpy_helper.from_array(np.ones((2, 2), np.uint8), "w")


def onnx_bytes(*nodes: tuple[str, list[str], list[str]]) -> bytes:
    made = [helper.make_node(operator, inputs, outputs) for operator, inputs, outputs in nodes]
    given = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2])]
    result = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2])]
    graph = helper.make_graph(made, "quantised", given, result, [SCALE, ZERO, WEIGHTS])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model)
    return model.SerializeToString()


QUANTISE = ("QuantizeLinear", ["x", "s", "z"], ["q"])
DYNAMIC = ("DynamicQuantizeLinear", ["x"], ["q", "t", "o"])
MODELS = {
    "a pair": onnx_bytes(QUANTISE, ("DequantizeLinear", ["q", "s", "z"], ["y"])),
    "a dynamic pair": onnx_bytes(DYNAMIC, ("DequantizeLinear", ["q", "t", "o"], ["y"])),
    "quantised products": onnx_bytes(
        QUANTISE,
        ("QLinearMatMul", ["q", "s", "z", "w", "s", "z", "s", "z"], ["p"]),
        ("DequantizeLinear", ["p", "s", "z"], ["y"]),
    ),
}


def fake(x: torch.Tensor) -> torch.Tensor:
    return torch.fake_quantize_per_tensor_affine(x, 0.1, 0, -128, 127)


def statically() -> torch.nn.Module:
    """A model that PyTorch has converted to eight-bit numbers."""
    model = torch.ao.quantization.QuantWrapper(torch.nn.Linear(2, 2)).eval()
    model.qconfig = torch.ao.quantization.get_default_qconfig("qnnpack")  # pyright: ignore
    prepared = torch.ao.quantization.prepare(model)
    prepared(torch.ones(3, 2))
    return torch.ao.quantization.convert(prepared)


@pytest.fixture(scope="module")
def archives() -> dict[str, bytes]:
    torch.backends.quantized.engine = "qnnpack"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dynamic = torch.ao.quantization.quantize_dynamic(
            torch.nn.Sequential(torch.nn.Linear(2, 2)).eval(), {torch.nn.Linear}, dtype=torch.qint8
        )
        static = torch.jit.trace(statically(), torch.zeros(1, 2), check_trace=False)
        assert isinstance(static, torch.jit.ScriptModule)
        return {
            "dynamic": traced(dynamic, (1, 2)),
            "static": saved(static),
            "fake, traced": traced(Applied(fake), (1, 2)),
            "fake, exported": exported(Applied(fake), [torch.zeros(1, 2)]),
        }


@pytest.mark.parametrize("name", MODELS)
def test_onnx_models_are_refused(name):
    with pytest.raises(CertifierError, match="quantised") as caught:
        certify_bytes(MODELS[name])
    assert caught.value.remedy == REMEDY


@pytest.mark.parametrize("name", ["dynamic", "static", "fake, traced", "fake, exported"])
def test_models_of_torch_are_refused(name, archives):
    with pytest.raises(CertifierError, match="quantised") as caught:
        certify_bytes(archives[name])
    assert caught.value.remedy == REMEDY


def test_a_custom_operator_that_names_itself_quantised_is_refused_with_the_same_remedy():
    data = onnx.load_model_from_string(MODELS["a pair"])
    data.graph.node[0].domain, data.graph.node[0].op_type = "com.microsoft", "QLinearAdd"
    data.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    with pytest.raises(CertifierError, match="quantised") as caught:
        certify_bytes(data.SerializeToString())
    assert caught.value.remedy == REMEDY


def test_weights_stored_as_integers_are_folded():
    """Only activations that are rounded make a model discontinuous; dequantised weights are constants."""
    data = onnx_bytes(("DequantizeLinear", ["w", "s", "z"], ["v"]), ("MatMul", ["x", "v"], ["y"]))
    # (1 - 3)/2 = -1 in every entry of a 2 x 2 matrix: norm 2.
    assert certify_bytes(data).certificate.lipschitz.upper == pytest.approx(2.0, rel=1e-6)


def test_the_standard_operators_are_listed_with_reason_and_remedy():
    assert all(is_quantised(name) and registry.REMEDIES[name] == REMEDY for name in STANDARD)
    assert not any(is_quantised(name) for name in ("Conv", "MatMul", "linear", "conv2d", "Einsum"))
