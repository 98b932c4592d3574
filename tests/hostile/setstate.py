"""A module that writes a file while PyTorch loads it, made by PyTorch itself.

Annotations are evaluated here, since TorchScript compiles by them.
"""

import torch
from torch import Tensor, nn

from tests.certifier.reading.torchscript_making import saved


class _Writing(nn.Module):
    path: str
    training: bool

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x)

    @torch.jit.export
    def __getstate__(self) -> tuple[str, bool]:
        return (self.path, self.training)

    @torch.jit.export
    def __setstate__(self, state: tuple[str, bool]) -> None:
        torch.ops.aten.save(torch.ones(1), state[0])
        self.path = state[0]
        self.training = state[1]


class _Around(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(self.layer(x))


def writing_module(path: str, *, inside: bool) -> bytes:
    """The archive of a scripted module that writes to `path` when it is loaded; `inside`: a submodule does."""
    module = _Writing(path)
    return saved(torch.jit.script(_Around(module) if inside else module))
