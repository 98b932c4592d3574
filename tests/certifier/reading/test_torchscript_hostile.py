"""Archives that nobody should open: each ends in a typed refusal, and none of their code is ever run."""

from __future__ import annotations

import io
import sys
import warnings
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from certifier.errors import CertifierError, ResourceLimitExceeded, UnsupportedModel, UnsupportedNode
from certifier.limits import Limits
from certifier.reading.torchscript.reader import read_torchscript
from tests.certifier.reading.torchscript_making import (
    archived,
    listing,
    read,
    scripted,
)
from tests.hostile.torchscripts import BASE, HEAD, SHAPE, program, tensor_archive, tensor_state


def test_the_archive_that_the_hostile_ones_are_made_of_is_read():
    assert read(BASE, SHAPE).outputs
    assert read(program("return torch.relu(x)"), SHAPE).outputs
    good = tensor_archive(bytes(16), tensor_state(4, (4,), (1,)))
    assert read(good, SHAPE).constants["w"].shape == (4,)


def hostile_state(folder: Path) -> bytes:
    """An archive whose module writes a file into `folder` while PyTorch loads it."""
    code = (
        HEAD
        + "  training : bool\n  def forward(self: __torch__.M,\n    x: Tensor) -> Tensor:\n    return torch.mul(x, 2)\n"
        + "  def __getstate__(self: __torch__.M) -> Tuple[int, bool]:\n    return (1, True)\n"
        + "  def __setstate__(self: __torch__.M,\n    state: Tuple[int, bool]) -> NoneType:\n"
        + f'    torch.save(torch.ones([1]), "{folder}/written")\n    self.training = (state)[1]\n    return None\n'
    )
    state = b"\x80\x02c__torch__\nM\n)\x81K\x01\x88\x86b."
    return archived(
        {
            "m/data.pkl": state,
            "m/code/__torch__.py": code.encode(),
            "m/constants.pkl": b"\x80\x02).",
            "m/version": b"3\n",
        }
    )


def test_a_setstate_that_writes_a_file_changes_nothing(tmp_path: Path):
    data = hostile_state(tmp_path)
    with pytest.raises(CertifierError):
        read(data, SHAPE)
    assert not listing(tmp_path)
    # The same bytes do write when PyTorch loads them: the archive is a real one.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.load(io.BytesIO(data))
    assert listing(tmp_path) == {str(tmp_path / "written")}


def test_reading_imports_no_pytorch():
    import subprocess

    program = "import sys; from certifier.reading.torchscript import reader; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


@pytest.mark.parametrize("legacy", [True, False])
@pytest.mark.parametrize("whole", [True, False])
def test_state_dicts_and_pickled_modules_say_how_to_export(legacy: bool, whole: bool):
    model, buffer = nn.Linear(4, 4), io.BytesIO()
    torch.save(model if whole else model.state_dict(), buffer, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(UnsupportedModel, match=r"torch\.jit\.trace"):
        read(buffer.getvalue(), SHAPE)


def test_the_limits_of_the_caller_are_kept():
    for limits in (Limits(model_bytes=100), Limits(elements=10), Limits(nodes=0), Limits(value_elements=3)):
        with pytest.raises(ResourceLimitExceeded):
            read_torchscript(BASE, limits=limits, input_shape=SHAPE)


def test_quantised_modules_are_refused():
    class Quantised(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.dequantize(torch.quantize_per_tensor(x, 0.1, 0, torch.quint8))

    with pytest.raises(UnsupportedNode, match=r"quantize_per_tensor"):
        read(scripted(Quantised()), SHAPE)
