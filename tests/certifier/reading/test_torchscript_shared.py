"""Published TorchScript archives answer as the ONNX files beside them, or are refused for the stated reason."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from certifier.engine import Engine
from certifier.errors import InvalidInput, UnsupportedModel, UnsupportedNode
from certifier.limits import Limits
from certifier.network import build_network, served_model
from certifier.reading.onnx import read_onnx
from certifier.reading.torchscript.reader import read_torchscript

pytestmark = pytest.mark.needs_shared

RESNET = "models/converted/akamaster/pytorch_resnet_cifar10/pretrained_models/cifar_resnet20_bnfolded"
DIGITS = "models/converted/ppauli/GLipSDP/Comparison/exports/glipsdp_digits_cnn2_seed0"
LIMITS = Limits()


@pytest.mark.parametrize(
    ("stem", "form", "shape"),
    [
        (RESNET, "traced", None),
        (RESNET, "scripted", (1, 3, 32, 32)),
        (DIGITS, "traced", None),
    ],
)
def test_archives_answer_as_the_onnx_files_beside_them(
    shared: Path, stem: str, form: str, shape: tuple[int, ...] | None
):
    archive = (shared / f"{stem}.{form}.pt").read_bytes()
    read = build_network(read_torchscript(archive, limits=LIMITS, input_shape=shape), limits=LIMITS, cut_head=False)
    known = build_network(
        read_onnx((shared / f"{stem}.onnx").read_bytes(), limits=LIMITS), limits=LIMITS, cut_head=False
    )
    rows = np.random.default_rng(3).normal(size=(4, int(np.prod(read.input.shape))))
    rows = rows.astype(np.float32).astype(np.float64)
    got = Engine(served_model(read), read.input).run(rows)
    wanted = Engine(served_model(known), known.input).run(rows)
    assert read.input.row_shape == known.input.row_shape
    assert np.abs(got - wanted).max() <= 1e-5 * np.abs(wanted).max()


def test_the_recurrent_policy_that_keeps_its_state_is_refused(shared: Path):
    data = (shared / "models/unitreerobotics/unitree_rl_gym/deploy/pre_train/h1/motion.pt").read_bytes()
    with pytest.raises(InvalidInput, match="shape"):
        read_torchscript(data, limits=LIMITS, input_shape=None)
    with pytest.raises(UnsupportedNode, match="keeps state from call to call") as caught:
        read_torchscript(data, limits=LIMITS, input_shape=(1, 41))
    assert caught.value.operator == "copy_" and "hidden_state" in caught.value.reason


@pytest.mark.parametrize(
    "name",
    [
        "akamaster/pytorch_resnet_cifar10/pretrained_models/resnet20-12fca82f.th",
        "Verified-Intelligence/auto_LiRPA/examples/vision/pretrained/kw_mnist.pth",
    ],
)
def test_state_dicts_are_refused(shared: Path, name: str):
    with pytest.raises(UnsupportedModel, match="export"):
        read_torchscript((shared / "models" / name).read_bytes(), limits=LIMITS, input_shape=(1, 3, 32, 32))
