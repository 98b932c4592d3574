"""A bundle is read as the single file that it stands for, and its paths lead nowhere but into itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from certifier.errors import CertifierError, MalformedModel, ResourceLimitExceeded, UnsupportedModel
from certifier.limits import Limits
from certifier.network import build_network, served_model
from certifier.reading.archive import read_archive
from certifier.reading.bundle import read_bundle
from certifier.reading.onnx import read_onnx
from tests.certifier.reading.exporting import engine
from tests.hostile.bundles import AT, WEIGHT, bundle, linear_model, zipped

LIMITS = Limits()


@pytest.mark.parametrize("deflated", [False, True], ids=["stored", "deflated"])
@pytest.mark.parametrize("folder", ["", "export/"], ids=["at the root", "in a folder"])
def test_external_data_is_taken_from_the_members(folder, deflated):
    facts = {"location": "w.bin", "offset": "8", "length": "48"}
    members = {f"{folder}model.onnx": linear_model(facts), f"{folder}w.bin": b"\0" * 8 + WEIGHT.tobytes()}
    graph = read_bundle(zipped(members, deflated=deflated), limits=LIMITS)
    np.testing.assert_array_equal(graph.constants["weight"], WEIGHT)


def test_offset_and_length_may_be_left_out():
    data = zipped({"model.onnx": linear_model({"location": "./w.bin"}), "w.bin": WEIGHT.tobytes()})
    np.testing.assert_array_equal(read_bundle(data, limits=LIMITS).constants["weight"], WEIGHT)


def test_a_model_with_its_weights_inside_may_be_zipped():
    model = onnx.load_model_from_string(linear_model({"location": "w.bin"}))
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(WEIGHT, "weight"))
    data = zipped({"model.onnx": model.SerializeToString()})
    np.testing.assert_array_equal(read_bundle(data, limits=LIMITS).constants["weight"], WEIGHT)


def test_external_data_of_attributes_is_taken_too():
    tensor = TensorProto(name="t", data_type=TensorProto.FLOAT, dims=(1, 3), data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="w.bin")
    graph = helper.make_graph(
        [helper.make_node("Constant", [], ["c"], value=tensor), helper.make_node("Add", ["x", "c"], ["y"])],
        "shifted",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)]).SerializeToString()
    with pytest.raises(UnsupportedModel, match="external data"):
        read_onnx(model, limits=LIMITS)
    network = build_network(
        read_bundle(zipped({"m.onnx": model, "w.bin": WEIGHT[0].tobytes()}), limits=LIMITS),
        limits=LIMITS,
        cut_head=False,
    )
    np.testing.assert_array_equal(network.evaluate(np.zeros((1, 3)))[0], WEIGHT[0])


@pytest.mark.needs_shared
@pytest.mark.parametrize("name", ["mlp_L3_W16.onnx", "cnn_C3_CH8.onnx"])
def test_a_published_model_with_external_data_is_read_and_served(shared: Path, name):
    folder = shared / "models/ppauli/GLipSDP/Scalability/exported_mnist_models"
    members = {each: (folder / each).read_bytes() for each in (name, f"{name}.data")}
    network = build_network(read_bundle(zipped(members), limits=LIMITS), limits=LIMITS, cut_head=False)
    original = onnxruntime.InferenceSession(str(folder / name), providers=["CPUExecutionProvider"])
    x = np.random.default_rng(0).random(original.get_inputs()[0].shape[1:], dtype=np.float32)[None]
    (expected,) = original.run(None, {original.get_inputs()[0].name: x})
    (served,) = engine(served_model(network)).run(None, {network.input.name: x})
    np.testing.assert_allclose(np.asarray(served), np.asarray(expected), rtol=1e-5, atol=1e-5)


SMALL = Limits(model_bytes=2**20)


def test_many_tensors_that_name_the_same_bytes_count_each_time():
    model = onnx.load_model_from_string(linear_model({"location": "w.bin"}, dims=(250, 250)))
    for index in range(30):
        model.graph.initializer.add().CopyFrom(model.graph.initializer[0])
        model.graph.initializer[-1].name = f"copy{index}"
    with pytest.raises(ResourceLimitExceeded, match="model_bytes"):
        read_bundle(zipped({"a.onnx": model.SerializeToString(), "w.bin": bytes(250_000)}), limits=SMALL)


def test_more_members_than_allowed_are_refused_before_they_are_listed():
    with pytest.raises(ResourceLimitExceeded, match="archive_members"):
        read_archive(b"PK\x01\x02" * 70_000, limits=LIMITS, compressed=True)


def test_nothing_is_read_from_the_file_system(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere.bin").write_bytes(WEIGHT.tobytes())
    with pytest.raises(MalformedModel, match="lacks"):
        read_bundle(bundle({"location": "elsewhere.bin"}), limits=LIMITS)


def test_damaged_models_never_escape_as_other_errors():
    generator = np.random.default_rng(5)
    whole = linear_model({**AT, "length": "48"})
    refused = 0
    for _ in range(3000):
        model = bytearray(whole)
        for place in generator.integers(0, len(model), 2):
            model[place] = int(generator.integers(0, 256))
        try:
            read_bundle(zipped({"a.onnx": bytes(model), "w.bin": bytes(56)}), limits=SMALL)
        except CertifierError:
            refused += 1
    assert 2000 < refused < 3000


def test_damaged_bytes_never_escape_as_other_errors():
    generator = np.random.default_rng(0)
    whole = bundle(AT)
    refused = 0
    for _ in range(500):
        data = bytearray(whole)
        for place in generator.integers(0, len(data), 2):
            data[place] = int(generator.integers(0, 256))
        try:
            read_bundle(bytes(data), limits=SMALL)
        except CertifierError:
            refused += 1
    assert refused > 250
