"""What a check says of a model is what certifying it does: the same first refusal, and none where none is raised."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from certifier import CertifyOptions, Limits, ModelCheck, check
from certifier.errors import CertifierError
from tests.building import certify_bytes, sum_of_two_inputs
from tests.certifier.reading.exporting import exported
from tests.certifier.reading.torchscript_making import traced
from tests.certifier.test_corpus import SMALL, manifest
from tests.hostile.registry import REGISTRY, SHAPES


def checked(data: bytes, **options: Any) -> ModelCheck:
    return check(data, options=CertifyOptions.model_validate(options), limits=Limits())


def refusal_of(data: bytes, **options: Any) -> CertifierError | None:
    try:
        certify_bytes(data, options=CertifyOptions.model_validate({"method": "product", **options}))
    except CertifierError as error:
        return error
    return None


def assert_they_agree(data: bytes, **options: Any) -> ModelCheck:
    """The first refusal of the check is the one that certifying raises, or there is none."""
    report, raised = checked(data, **options), refusal_of(data, **options)
    if raised is None:
        assert report.refusals == []
        assert all(one.supported and not one.refused for one in report.operators)
        return report
    first, details = report.refusals[0], raised.details()
    assert (first.code, first.message, first.remedy) == (raised.code, str(raised), raised.remedy)
    assert [first.node, first.operator, first.reason] == [details.get(key) for key in ("node", "operator", "reason")]
    return report


@pytest.mark.needs_shared
@pytest.mark.parametrize("path", [path for path, _ in manifest() if Path(path).name in SMALL] or [""])
def test_the_small_models_of_the_corpus_are_checked_as_they_are_certified(shared: Path, path: str) -> None:
    report = assert_they_agree((shared / "models" / path).read_bytes())
    assert report.operators or report.refusals


def chain(*steps: tuple[str, Sequence[str], dict[str, Any]], outputs: Sequence[str] = ("o",), opset: int = 17) -> bytes:
    """Nodes named after their place, each computing the value of its name: v0, v1, ...; the last one is `o`."""
    nodes = []
    for place, (operator, reads, attributes) in enumerate(steps):
        name = f"v{place}" if place < len(steps) - 1 else "o"
        domain, _, kind = operator.rpartition("/")
        nodes.append(helper.make_node(kind, list(reads), [name], name=f"n{place}", domain=domain, **attributes))
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 3]) for name in ("x", *outputs)]
    weights = numpy_helper.from_array(np.eye(3, dtype=np.float32), "w")
    graph = helper.make_graph(nodes, "chain", values[:1], values[1:], [weights])
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("com.example", 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8).SerializeToString()


def test_every_refusal_is_found_with_what_helps_and_the_nodes_behind_it_are_not_blamed() -> None:
    data = chain(
        ("Round", ["x"], {}),
        ("Sign", ["x"], {}),
        ("Exp", ["x"], {}),
        ("Add", ["v0", "v1"], {}),
        ("Add", ["v3", "v2"], {}),
        ("MatMul", ["v4", "w"], {}),
    )
    report = assert_they_agree(data)
    assert [(one.node, one.operator) for one in report.refusals] == [("n0", "Round"), ("n1", "Sign"), ("n2", "Exp")]
    assert all(one.remedy for one in report.refusals)
    uses = {one.operator: (one.count, one.supported, one.refused) for one in report.operators}
    assert uses == {
        "Add": (2, True, 0), "Exp": (1, False, 1), "MatMul": (1, True, 0), "Round": (1, False, 1), "Sign": (1, False, 1)
    }  # fmt: skip
    boxed = assert_they_agree(data, input_box={"lower": 0, "upper": 1})
    assert [one.operator for one in boxed.refusals] == ["Round", "Sign"]


def test_all_unknown_operators_of_an_onnx_model_are_named() -> None:
    data = chain(("Relu", ["x"], {}), ("com.example/Twist", ["v0"], {}), ("com.example/Turn", ["v1"], {}))
    report = assert_they_agree(data)
    assert {one.operator for one in report.refusals} == {"Twist", "Turn"}
    assert {(one.operator, one.domain, one.supported) for one in report.operators} == {
        ("Relu", "ai.onnx", True), ("Twist", "com.example", False), ("Turn", "com.example", False)
    }  # fmt: skip


class Strange(nn.Module):
    def forward(self, x):
        return torch.cumprod(torch.relu(x), 1) + torch.special.bessel_j0(x)


def test_all_unknown_operators_of_an_exported_program_are_named() -> None:
    report = assert_they_agree(exported(Strange(), [torch.zeros(1, 3)]))
    assert [one.operator for one in report.refusals] == ["cumprod", "special_bessel_j0"]
    assert {one.operator: one.supported for one in report.operators} == {
        "add": True, "cumprod": False, "relu": True, "special_bessel_j0": False
    }  # fmt: skip


def test_a_traced_program_is_refused_where_its_code_says() -> None:
    report = assert_they_agree(traced(Strange(), (1, 3)))
    assert report.refusals[0].node is not None and report.refusals[0].node.startswith("code/")


def test_heads_that_are_cut_off_are_no_refusals() -> None:
    data = onnx.load_model_from_string(chain(("Softmax", ["x"], {}), ("ArgMax", ["v0"], {"axis": 1})))
    data.graph.output[0].type.tensor_type.elem_type = TensorProto.INT64
    report = assert_they_agree(data.SerializeToString(), input_box={"lower": 0, "upper": 1})
    assert any("cut off" in note for note in report.notes)
    assert {one.operator: one.supported for one in report.operators} == {"ArgMax": True, "Softmax": True}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"inputs": ["x"]},
        {"inputs": ["x"], "fixed_inputs": {"y": 0.5}},
        {"fixed_inputs": {"y": [1]}},
        {"outputs": ["nothing"]},
        {"task": "binary"},
        {"threshold": 0.5},
        {"input_box": {"lower": 1, "upper": 0}},
        {"input_box": {"lower": {"x": 0}, "upper": 1}},
        {"input_shape": [1, 7]},
        {"preprocessing": {"scale": 2}},
    ],
)
def test_options_that_do_not_fit_are_refused_as_certifying_refuses_them(options: dict[str, Any]) -> None:
    report = assert_they_agree(sum_of_two_inputs(), **options)
    assert [(one.operator, one.count) for one in report.operators] == [("Add", 1)]


def test_a_box_and_a_task_are_both_found_wrong() -> None:
    report = assert_they_agree(sum_of_two_inputs(), input_box={"lower": 1, "upper": 0}, task="binary")
    assert [one.field for one in report.refusals] == ["options.input_box", "options.task"]


@pytest.mark.parametrize("data", [b"", b"text", b"PK\x03\x04", b"\x80\x02}q\x00.", b"\x08\x08"])
def test_bytes_that_are_no_model_are_a_report_too(data: bytes) -> None:
    report = assert_they_agree(data)
    assert report.format is None and report.operators == [] and len(report.refusals) == 1


def assert_refused_by_their_codes(names: Sequence[str]) -> None:
    """Those that take much to be read are checked in a server's children."""
    wrong = {}
    for name in names:
        form, case = REGISTRY[name]
        data = case.build()
        if len(data) > 20_000:
            continue
        report = checked(data, input_shape=SHAPES.get(form))
        code = report.refusals[0].code if report.refusals else "certified"
        if code != case.code:
            wrong[name] = code
    assert not wrong


def test_small_hostile_uploads_are_refused_by_their_codes() -> None:
    assert_refused_by_their_codes(list(REGISTRY)[::12])


@pytest.mark.slow
def test_every_small_hostile_upload_is_refused_by_its_code() -> None:
    assert_refused_by_their_codes(list(REGISTRY))
