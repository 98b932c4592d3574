"""TorchScript archives made by PyTorch, read statically, served by the engine: PyTorch's own answers."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torch.nn.utils import spectral_norm as old_spectral_norm

from certifier.errors import InvalidInput, UnsupportedModel, UnsupportedNode
from certifier.reading.torchscript.reader import read_torchscript
from tests.certifier.reading.torchscript_making import (
    FORMS,
    LIMITS,
    Shape,
    assert_same,
    read,
    saved,
    scripted,
    traced,
)


def settled(model: nn.Module, seed: int = 0) -> nn.Module:
    """The model with random weights and running statistics, in eval mode."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in [*model.parameters(), *model.buffers()]:
            if tensor.is_floating_point() and tensor.dim() > 0:
                fresh = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
                scale = max(tensor[0].numel(), 1) ** -0.5
                tensor.copy_(fresh * scale if tensor.dim() > 1 else 0.5 + fresh.abs())
    return model.eval()


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Dropout(0.4), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3))


class Convolutional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.second = nn.Conv2d(4, 6, 3, stride=2, groups=2)
        self.out = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.first(x)), inplace=True)
        x = F.avg_pool2d(F.leaky_relu(self.second(x), 0.1), 3)
        return self.out(torch.flatten(x, 1))


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Linear(width, width)
        self.norm = nn.BatchNorm1d(width)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(x + self.norm(self.inner(x)))


class Looped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([Block(4) for _ in range(3)])
        self.heads = nn.ModuleDict({"a": nn.Linear(4, 2), "b": nn.Linear(4, 2)})
        self.depth = 2

    def forward(self, x: Tensor) -> Tensor:
        for index, block in enumerate(self.blocks):
            x = block(x) * (index + 1)
        outputs = []
        for head in self.heads.values():
            outputs.append(head(x))
        x = torch.cat(outputs, 1)
        for _ in range(self.depth):
            x = x + x
        return F.dropout(x, 0.5, self.training).view(x.size(0), -1)


class Shared(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Linear(4, 4)
        self.two = nn.Linear(4, 4)
        self.two.weight = self.one.weight
        self.again = self.one

    def forward(self, x: Tensor) -> Tensor:
        return self.again(torch.relu(self.two(torch.relu(self.one(x)))))


class Pair(NamedTuple):
    left: Tensor
    right: int


class Language(nn.Module):
    """What scripted code may hold: optional values, tuples, loops with conditions, assertions, lists, dictionaries."""

    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(4, 4)
        self.scale: float | None = None
        self.sizes = [2, 3]

    def halved(self, x: Tensor, by: float = 2.0) -> Pair:
        return Pair(x / by, 3)

    def forward(self, x: Tensor, mask: Tensor | None = None, flag: bool = False) -> Tensor:
        assert x.dim() == 2, f"expected two axes, not {x.dim()}"
        if mask is not None:
            x = x * mask
        if flag:
            raise ValueError("never")
        if self.scale is not None:
            x = x * self.scale
        pair = self.halved(x)
        x = pair.left * pair.right
        count = 0
        while count < 3 and x.size(1) == 4:
            x = self.out(x)
            count += 1
        table = {"x": x}
        rows, columns = x.shape
        y = table["x"].reshape(rows, columns // 2, 2).permute(0, 2, 1).reshape([rows, -1])
        return y + self.sizes[0] - max(1, min(2, 7)) % 5


MODELS: dict[str, tuple[nn.Module, Shape]] = {
    "mlp": (mlp(), (1, 6)),
    "convolutional": (Convolutional(), (1, 3, 8, 8)),
    "looped": (Looped(), (1, 4)),
    "shared": (Shared(), (1, 4)),
    "nested": (nn.Sequential(nn.Sequential(nn.Linear(3, 4), nn.Sequential(nn.ELU())), nn.Linear(4, 2)), (1, 3)),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", MODELS)
def test_archives_of_every_form_answer_as_pytorch_does(name: str, form: str):
    model, shape = MODELS[name]
    assert_same(FORMS[form](settled(model), shape), shape)


def test_the_language_of_scripted_code_is_followed():
    assert_same(scripted(settled(Language())), (1, 4))
    assert_same(scripted(settled(Language()), frozen=True), (1, 4))


@pytest.mark.parametrize("form", ["traced", "traced and frozen"])
def test_both_styles_of_spectral_normalisation_are_folded(form: str):
    model = nn.Sequential(
        old_spectral_norm(nn.Linear(5, 4)),
        nn.ReLU(),
        parametrizations.spectral_norm(nn.Linear(4, 4)),
        nn.ReLU(),
        parametrizations.spectral_norm(nn.Linear(4, 3)),
    )
    with torch.no_grad():
        for _ in range(5):
            model.train()(torch.randn(2, 5))
    network = assert_same(FORMS[form](model.eval(), (1, 5)), (1, 5))
    if form == "traced":
        assert any("spectral" in note for note in network.notes)


def test_singular_vector_estimates_are_kept_under_their_names():
    model = nn.Sequential(old_spectral_norm(nn.Linear(5, 4)), parametrizations.spectral_norm(nn.Linear(4, 3)))
    constants = read(traced(model, (1, 5)), None).constants
    state = {name: value.numpy() for name, value in model.state_dict().items()}
    for name in ("0.weight_u", "0.weight_v", "1.parametrizations.weight.0._u", "1.parametrizations.weight.0._v"):
        assert (constants[name] == state[name]).all()


def test_parameters_keep_their_names_and_shared_ones_are_one_constant():
    graph = read(scripted(settled(Shared())), (1, 4))
    weights = [name for name, value in graph.constants.items() if value.shape == (4, 4)]
    assert weights == ["one.weight"]
    assert {"one.bias", "two.bias"} <= set(graph.constants)
    inner = read(scripted(settled(Looped())), (1, 4)).constants
    assert {"blocks.0.inner.weight", "blocks.2.norm.running_var", "heads.b.bias"} <= set(inner)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-13), (torch.float16, 1e-2)])
@pytest.mark.parametrize("form", FORMS)
def test_other_precisions_answer_as_pytorch_does(form: str, dtype: torch.dtype, tolerance: float):
    data = FORMS[form](settled(mlp()).to(dtype), (1, 6))
    network = assert_same(data, (1, 6), tolerance=tolerance)
    assert network.input.dtype == str(dtype).removeprefix("torch.")


@pytest.mark.parametrize("form", FORMS)
def test_bfloat16_weights_are_read_exactly(form: str):
    model = settled(mlp()).to(torch.bfloat16)
    graph = read(FORMS[form](model, (1, 6)), (1, 6))
    assert graph.inputs[0].dtype == "bfloat16"
    wanted = {value.detach().float().numpy().sum() for value in model.parameters()}
    got = [np.asarray(value, dtype=np.float32).sum() for value in graph.constants.values()]
    assert wanted <= set(got)


def test_transposed_and_sliced_parameters_are_views_of_their_storage():
    class Views(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            whole = torch.arange(40.0).reshape(5, 8) / 40
            self.register_buffer("turned", whole.t()[1:7:2])
            self.register_buffer("spread", torch.ones(1, 1).expand(3, 4))

        def forward(self, x: Tensor) -> Tensor:
            return torch.matmul(x, self.get_buffer("turned").t()) @ self.get_buffer("spread")

    assert_same(traced(Views(), (1, 5)), (1, 5))


def test_the_shape_is_taken_from_the_trace():
    assert read(traced(settled(Convolutional()), (1, 3, 8, 8)), None).inputs[0].shape == (1, 3, 8, 8)


def test_the_shape_is_taken_from_a_first_linear_layer():
    assert read(scripted(settled(mlp())), None).inputs[0].shape == (1, 6)


@pytest.mark.parametrize(
    ("model", "shape"), [(Convolutional(), None), (mlp(), (2, 6)), (mlp(), (1, 0)), (mlp(), (1, 2**41))]
)
def test_a_shape_that_is_missing_or_wrong_is_asked_for(model: nn.Module, shape: Shape | None):
    with pytest.raises(InvalidInput) as caught:
        read(scripted(settled(model)), shape)
    assert caught.value.field == "options.input_shape"


def test_a_trace_of_many_rows_asks_for_the_shape_of_one():
    with pytest.raises(InvalidInput, match="4, 6"):
        read(traced(settled(mlp()), (4, 6)), None)
    assert_same(traced(settled(mlp()), (4, 6)), (1, 6))


def test_writing_into_an_intermediate_tensor_is_seen_by_all_its_names():
    class InPlace(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            y = x * 2
            z = y
            y.add_(1)
            z.relu_()
            return y + z + x

    assert_same(scripted(InPlace()), (1, 4))
    assert_same(traced(InPlace(), (1, 4)), (1, 4))


def test_a_tensor_that_may_be_a_view_is_refused_only_if_it_is_read_after_the_other_was_written():
    """A reshape copies where it has to; of a permuted tensor nobody here can tell."""

    class Unread(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            y = torch.relu(x + 1).reshape(2, 2)
            return y.mul_(2)

    class Reread(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            y = x * 2
            z = y.reshape(2, 2)
            z[0] = 0
            return y

    class Written(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            y = x * 2
            z = y.reshape(2, 2)
            y[:, 0] = 0
            return z

    assert_same(scripted(Unread()), (1, 4))
    for module in (Reread(), Written()):
        assert "view" in refusal(scripted(module)).reason
        assert "view" in refusal(traced(module, (1, 4))).reason


def refusal(data: bytes, shape: Shape | None = (1, 4)) -> UnsupportedNode:
    with pytest.raises(UnsupportedNode) as caught:
        read(data, shape)
    assert caught.value.node.startswith("code/__torch__") and caught.value.node.rpartition(":")[2].isdigit()
    return caught.value


class Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def forward(self, x: Tensor) -> Tensor:
        self.count += 1
        return x * self.count


class Averaging(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(4))

    def forward(self, x: Tensor) -> Tensor:
        self.mean.mul_(0.9)  # pyright: ignore
        return x - self.mean  # pyright: ignore


class Remembering(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.seen = [1]

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(2)
        return x * len(self.seen)


class Branching(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            return x
        return -x


class Endless(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        count = 0
        while count >= 0:
            count = (count + 1) % 7
        return x * count


def test_attribute_assignment_is_refused():
    assert refusal(scripted(Counting())).operator == "prim::SetAttr"


@pytest.mark.parametrize("form", ["traced", "scripted"])
def test_changing_a_buffer_is_refused(form: str):
    assert "state" in refusal(FORMS[form](Averaging(), (1, 4))).reason


def test_changing_a_list_of_the_module_is_refused():
    assert "kept from call to call" in refusal(scripted(Remembering())).reason


def test_a_branch_on_the_input_is_refused():
    assert "depends on the model's input" in refusal(scripted(Branching())).reason


def test_training_mode_is_refused():
    model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5)).train()
    assert "dropout" in refusal(saved(torch.jit.script(model))).operator


def test_an_endless_loop_ends_at_a_limit():
    from certifier.errors import ResourceLimitExceeded

    with pytest.raises(ResourceLimitExceeded, match="steps"):
        read(scripted(Endless()), (1, 4))


def test_several_outputs_are_kept_in_order():
    class Two(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
            return x * 2, {"b": x + 1, "c": x}

    graph = read(scripted(Two()), (1, 4))
    assert len(graph.outputs) == 3 and len(set(graph.outputs)) == 3


def test_several_inputs_come_from_the_trace():
    class Two(nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return x + y

    script = torch.jit.trace(Two(), (torch.zeros(1, 4), torch.zeros(1, 4)))
    assert isinstance(script, torch.jit.ScriptModule)
    assert [tensor.shape for tensor in read(saved(script), None).inputs] == [(1, 4), (1, 4)]
    with pytest.raises(UnsupportedModel, match="2 tensors"):
        read_torchscript(scripted(Two()), limits=LIMITS, input_shape=None)
