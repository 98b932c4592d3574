"""TorchScript archives that the tests make, and what PyTorch and the engine answer for them."""

from __future__ import annotations

import io
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from certifier.engine import Engine
from certifier.flow import Network
from certifier.graph import Graph
from certifier.limits import Limits
from certifier.network import build_network, served_model
from certifier.reading.torchscript.reader import read_torchscript

LIMITS = Limits()
Shape = tuple[int, ...]


def saved(script: torch.jit.ScriptModule) -> bytes:
    """The archive that `torch.jit.save` writes."""
    buffer = io.BytesIO()
    torch.jit.save(script, buffer)
    return buffer.getvalue()


def traced(model: nn.Module, shape: Shape, *, frozen: bool = False, dtype: torch.dtype = torch.float32) -> bytes:
    """The archive of the model's trace at one input of zeros, in the type of its parameters if it has any."""
    model.eval()
    dtype = next((each.dtype for each in model.parameters()), dtype)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        script = torch.jit.trace(model, torch.zeros(shape, dtype=dtype), check_trace=False)
        assert isinstance(script, torch.jit.ScriptModule)
        return saved(torch.jit.freeze(script) if frozen else script)


def scripted(model: nn.Module, *, frozen: bool = False) -> bytes:
    """The archive of the scripted model."""
    model.eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        script = torch.jit.script(model)
        return saved(torch.jit.freeze(script) if frozen else script)


FORMS: Mapping[str, Callable[[nn.Module, Shape], bytes]] = {
    "traced": traced,
    "traced and frozen": lambda model, shape: traced(model, shape, frozen=True),
    "scripted": lambda model, shape: scripted(model),
    "scripted and frozen": lambda model, shape: scripted(model, frozen=True),
}


def read(data: bytes, shape: Shape | None) -> Graph:
    """The archive's graph, read without PyTorch."""
    return read_torchscript(data, limits=LIMITS, input_shape=shape)


def network_of(data: bytes, shape: Shape | None) -> Network:
    """The network of an archive."""
    return build_network(read(data, shape), limits=LIMITS, cut_head=False)


def answers(data: bytes, network: Network, count: int = 5) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What the engine and what PyTorch answer to the same random rows, one row each."""
    generator = torch.Generator().manual_seed(1)
    shape = network.input.shape
    rows = 2 * torch.randn((count, *shape), generator=generator, dtype=torch.float64)
    rows = rows.to(getattr(torch, network.input.dtype))
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        script = torch.jit.load(io.BytesIO(data))
        wanted = np.stack([script(row).double().numpy().reshape(-1) for row in rows.clone()])
    engine = Engine(served_model(network), network.input)
    return engine.run(rows.double().numpy().reshape(count, -1)), wanted


def assert_same(data: bytes, shape: Shape | None, *, tolerance: float = 1e-5) -> Network:
    """The archive, read statically and served, answers what PyTorch answers; `tolerance` is relative to the answers."""
    network = network_of(data, shape)
    got, wanted = answers(data, network)
    assert np.abs(wanted).max() > 1e-3, "a model that answers nothing proves nothing"
    assert np.abs(got - wanted).max() <= tolerance * max(1.0, np.abs(wanted).max())
    return network


def members(data: bytes) -> dict[str, bytes]:
    """The members of an archive by name."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {info.filename: archive.read(info) for info in archive.infolist()}


def archived(content: Mapping[str, bytes], *, compression: int = zipfile.ZIP_STORED) -> bytes:
    """A zip of the given members."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, value in content.items():
            archive.writestr(name, value)
    return buffer.getvalue()


def changed(data: bytes, edit: Callable[[str, bytes], bytes | None]) -> bytes:
    """The archive with every member replaced by what `edit` gives for it; None leaves it out."""
    content = {name: edit(name, value) for name, value in members(data).items()}
    return archived({name: value for name, value in content.items() if value is not None})


def listing(folder: Path) -> set[str]:
    """Every file below a folder."""
    return {str(path) for path in folder.rglob("*")}
