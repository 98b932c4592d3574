"""A bundle is read as the single file that it stands for, and its paths lead nowhere but into itself."""

from __future__ import annotations

import io
import stat
import zipfile
from collections.abc import Callable
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

LIMITS = Limits()
WEIGHT = np.arange(12, dtype=np.float32).reshape(4, 3)


def _model(facts: dict[str, str], *, dtype: int = TensorProto.FLOAT, dims: tuple[int, ...] = (4, 3)) -> bytes:
    """A linear model whose weight is said to be at `facts`."""
    weight = TensorProto(name="weight", data_type=dtype, dims=dims, data_location=TensorProto.EXTERNAL)
    for key, value in facts.items():
        weight.external_data.add(key=key, value=value)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "weight"], ["y"])],
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3])],
        [weight],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)]).SerializeToString()


def _zip(members: dict[str, bytes], *, deflated: bool = False) -> bytes:
    buffer = io.BytesIO()
    method = zipfile.ZIP_DEFLATED if deflated else zipfile.ZIP_STORED
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def _bundle(facts: dict[str, str], **others: bytes) -> bytes:
    return _zip({"model.onnx": _model(facts), "w.bin": b"\0" * 8 + WEIGHT.tobytes(), **others})


@pytest.mark.parametrize("deflated", [False, True], ids=["stored", "deflated"])
@pytest.mark.parametrize("folder", ["", "export/"], ids=["at the root", "in a folder"])
def test_external_data_is_taken_from_the_members(folder, deflated):
    facts = {"location": "w.bin", "offset": "8", "length": "48"}
    members = {f"{folder}model.onnx": _model(facts), f"{folder}w.bin": b"\0" * 8 + WEIGHT.tobytes()}
    graph = read_bundle(_zip(members, deflated=deflated), limits=LIMITS)
    np.testing.assert_array_equal(graph.constants["weight"], WEIGHT)


def test_offset_and_length_may_be_left_out():
    data = _zip({"model.onnx": _model({"location": "./w.bin"}), "w.bin": WEIGHT.tobytes()})
    np.testing.assert_array_equal(read_bundle(data, limits=LIMITS).constants["weight"], WEIGHT)


def test_a_model_with_its_weights_inside_may_be_zipped():
    model = onnx.load_model_from_string(_model({"location": "w.bin"}))
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(WEIGHT, "weight"))
    data = _zip({"model.onnx": model.SerializeToString()})
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
        read_bundle(_zip({"m.onnx": model, "w.bin": WEIGHT[0].tobytes()}), limits=LIMITS), limits=LIMITS, cut_head=False
    )
    np.testing.assert_array_equal(network.evaluate(np.zeros((1, 3)))[0], WEIGHT[0])


@pytest.mark.needs_shared
@pytest.mark.parametrize("name", ["mlp_L3_W16.onnx", "cnn_C3_CH8.onnx"])
def test_a_published_model_with_external_data_is_read_and_served(shared: Path, name):
    folder = shared / "models/ppauli/GLipSDP/Scalability/exported_mnist_models"
    members = {each: (folder / each).read_bytes() for each in (name, f"{name}.data")}
    network = build_network(read_bundle(_zip(members), limits=LIMITS), limits=LIMITS, cut_head=False)
    original = onnxruntime.InferenceSession(str(folder / name), providers=["CPUExecutionProvider"])
    x = np.random.default_rng(0).random(original.get_inputs()[0].shape[1:], dtype=np.float32)[None]
    (expected,) = original.run(None, {original.get_inputs()[0].name: x})
    (served,) = engine(served_model(network)).run(None, {network.input.name: x})
    np.testing.assert_allclose(np.asarray(served), np.asarray(expected), rtol=1e-5, atol=1e-5)


def _with_entry(change: Callable[[zipfile.ZipInfo], None], content: bytes = b"x") -> bytes:
    """A bundle with one member more, whose description `change` has edited."""
    buffer = io.BytesIO(_bundle({"location": "w.bin", "offset": "8"}))
    with zipfile.ZipFile(buffer, "a") as archive:
        entry = zipfile.ZipInfo("more")
        change(entry)
        archive.writestr(entry, content)
    return buffer.getvalue()


def _symlink(entry: zipfile.ZipInfo) -> None:
    entry.create_system, entry.external_attr = 3, (stat.S_IFLNK | 0o777) << 16


def _bomb() -> bytes:
    return _zip({"model.onnx": _model({"location": "w.bin"}), "w.bin": b"\0" * 2**22}, deflated=True)


def _lying(promised: int) -> bytes:
    """A deflated member that says it unpacks to `promised` bytes."""
    data = bytearray(_zip({"a.onnx": b"\0" * 10**6}, deflated=True))
    at = data.rindex(b"PK\x01\x02")
    data[at + 24 : at + 28] = promised.to_bytes(4, "little")
    return bytes(data)


def _duplicate() -> bytes:
    buffer = io.BytesIO(_bundle({"location": "w.bin", "offset": "8"}))
    with zipfile.ZipFile(buffer, "a") as archive, pytest.warns(UserWarning):
        archive.writestr("w.bin", b"y")
    return buffer.getvalue()


def _with_own_data() -> bytes:
    model = onnx.load_model_from_string(_model(AT))
    model.graph.initializer[0].raw_data = WEIGHT.tobytes()
    return model.SerializeToString()


def _renamed(old: bytes, new: bytes) -> bytes:
    return _with_entry(lambda entry: setattr(entry, "filename", old.decode())).replace(old, new)


SMALL = Limits(model_bytes=2**20)
AT = {"location": "w.bin", "offset": "8"}
HOSTILE: dict[str, tuple[Callable[[], bytes], type[CertifierError]]] = {
    "not a zip": (lambda: b"PK\x03\x04" + b"\0" * 100, MalformedModel),
    "truncated": (lambda: _bundle(AT)[:-30], MalformedModel),
    "no model": (lambda: _zip({"w.bin": b""}), UnsupportedModel),
    "two models": (lambda: _zip({"a.onnx": _model(AT), "b.onnx": _model(AT)}), UnsupportedModel),
    "damaged model": (lambda: _zip({"a.onnx": b"\xff" * 50}), MalformedModel),
    "missing data": (lambda: _bundle({"location": "other.bin"}), MalformedModel),
    "no location": (lambda: _bundle({"offset": "0"}), MalformedModel),
    "location outside": (lambda: _bundle({"location": "../w.bin"}), MalformedModel),
    "location absolute": (lambda: _bundle({"location": "/etc/passwd"}), MalformedModel),
    "location through a folder": (lambda: _bundle({"location": "a/../w.bin"}), MalformedModel),
    "location with backslash": (lambda: _bundle({"location": "..\\w.bin"}), MalformedModel),
    "unknown key": (lambda: _bundle({**AT, "basepath": "/"}), MalformedModel),
    "location that is no text": (
        lambda: _zip({"a.onnx": _model(AT).replace(b"w.bin", b"\xff\xfe\xff.b"), "w.bin": b""}),
        MalformedModel,
    ),
    "negative offset": (lambda: _bundle({**AT, "offset": "-8"}), MalformedModel),
    "offset in words": (lambda: _bundle({**AT, "offset": "eight"}), MalformedModel),
    "offset beyond": (lambda: _bundle({**AT, "offset": "16"}), MalformedModel),
    "endless offset": (lambda: _bundle({**AT, "offset": "9" * 5000}), MalformedModel),
    "length too small": (lambda: _bundle({**AT, "length": "44"}), MalformedModel),
    "length too large": (lambda: _bundle({**AT, "length": "4800"}), MalformedModel),
    "data inside and outside": (
        lambda: _zip({"a.onnx": _with_own_data(), "w.bin": b"\0" * 8 + WEIGHT.tobytes()}),
        MalformedModel,
    ),
    "huge shape": (
        lambda: _zip({"a.onnx": _model(AT, dims=(2**40, 2**40)), "w.bin": b"x"}),
        ResourceLimitExceeded,
    ),
    "negative shape": (lambda: _zip({"a.onnx": _model(AT, dims=(-4, 3)), "w.bin": b"x"}), MalformedModel),
    "text weights": (lambda: _zip({"a.onnx": _model(AT, dtype=TensorProto.STRING), "w.bin": b"x"}), UnsupportedModel),
    "unknown element type": (lambda: _zip({"a.onnx": _model(AT, dtype=99), "w.bin": b"x"}), UnsupportedModel),
    "compression bomb": (_bomb, ResourceLimitExceeded),
    "member longer than it says": (lambda: _lying(1000), MalformedModel),
    "member shorter than it says": (lambda: _lying(10**6 + 1), MalformedModel),
    "symbolic link": (lambda: _with_entry(_symlink, b"/etc/passwd"), MalformedModel),
    "two members of one name": (_duplicate, MalformedModel),
    "name outside": (lambda: _with_entry(lambda entry: setattr(entry, "filename", "../more")), MalformedModel),
    "name absolute": (lambda: _with_entry(lambda entry: setattr(entry, "filename", "/more")), MalformedModel),
    "name with a drive": (lambda: _with_entry(lambda entry: setattr(entry, "filename", "C:/more")), MalformedModel),
    "name with a zero byte": (lambda: _renamed(b"more", b"m\0re"), MalformedModel),
    "name with backslash": (lambda: _renamed(b"..more", b"..\\ore"), MalformedModel),
    "other compression": (
        lambda: _with_entry(lambda entry: setattr(entry, "compress_type", zipfile.ZIP_LZMA)),
        UnsupportedModel,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_bundle_is_refused_with_a_typed_error(name):
    build, kind = HOSTILE[name]
    with pytest.raises(kind):
        read_bundle(build(), limits=SMALL)


def test_many_tensors_that_name_the_same_bytes_count_each_time():
    model = onnx.load_model_from_string(_model({"location": "w.bin"}, dims=(250, 250)))
    for index in range(30):
        model.graph.initializer.add().CopyFrom(model.graph.initializer[0])
        model.graph.initializer[-1].name = f"copy{index}"
    with pytest.raises(ResourceLimitExceeded, match="model_bytes"):
        read_bundle(_zip({"a.onnx": model.SerializeToString(), "w.bin": bytes(250_000)}), limits=SMALL)


def test_more_members_than_allowed_are_refused_before_they_are_listed():
    with pytest.raises(ResourceLimitExceeded, match="archive_members"):
        read_archive(b"PK\x01\x02" * 70_000, limits=LIMITS, compressed=True)


def test_nothing_is_read_from_the_file_system(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere.bin").write_bytes(WEIGHT.tobytes())
    with pytest.raises(MalformedModel, match="lacks"):
        read_bundle(_bundle({"location": "elsewhere.bin"}), limits=LIMITS)


def test_damaged_models_never_escape_as_other_errors():
    generator = np.random.default_rng(5)
    whole = _model({**AT, "length": "48"})
    refused = 0
    for _ in range(3000):
        model = bytearray(whole)
        for place in generator.integers(0, len(model), 2):
            model[place] = int(generator.integers(0, 256))
        try:
            read_bundle(_zip({"a.onnx": bytes(model), "w.bin": bytes(56)}), limits=SMALL)
        except CertifierError:
            refused += 1
    assert 2000 < refused < 3000


def test_damaged_bytes_never_escape_as_other_errors():
    generator = np.random.default_rng(0)
    whole = _bundle(AT)
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
