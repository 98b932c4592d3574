"""PyTorch's recurrences and their cells, read from traces, scripts and exported programs, answer what it answers."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from certifier.errors import UnsupportedNode
from certifier.reading.exported.reader import read_exported
from tests.building import certify_bytes
from tests.certifier.reading.exporting import Applied, exported
from tests.certifier.reading.test_agreement import assert_exported_same
from tests.certifier.reading.torchscript_making import LIMITS, assert_same, read, scripted, traced

SHAPE = (1, 5, 3)


class Last(nn.Module):
    """The states after every step and after the last one, of a recurrence over one sequence."""

    def __init__(self, recurrence: nn.RNNBase) -> None:
        super().__init__()
        self.recurrence = recurrence

    def forward(self, x: Tensor) -> Tensor:
        every, last = self.recurrence(x)
        ends = torch.cat(last, 2) if isinstance(last, tuple) else last
        return torch.cat([every.flatten(), ends.flatten()]).unsqueeze(0)


class Stepwise(nn.Module):
    """A cell over the steps of a sequence, by a loop of its own."""

    def __init__(self, cell: nn.RNNCellBase) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, x: Tensor) -> Tensor:
        state = None
        for step in x.unbind(1):
            state = self.cell(step, state)
        return state[0] if isinstance(state, tuple) else state  # pyright: ignore[reportReturnType]


RECURRENCES: dict[str, Callable[[], nn.RNNBase]] = {
    "LSTM": lambda: nn.LSTM(3, 4, batch_first=True),
    "LSTM, two layers to and fro": lambda: nn.LSTM(3, 2, 2, batch_first=True, bidirectional=True, dropout=0.5),
    "GRU, to and fro": lambda: nn.GRU(3, 4, batch_first=True, bidirectional=True),
    "GRU, two layers without biases": lambda: nn.GRU(3, 4, 2, batch_first=True, bias=False),
    "RNN by tanh": lambda: nn.RNN(3, 4, batch_first=True),
    "RNN by relu, to and fro": lambda: nn.RNN(3, 4, nonlinearity="relu", batch_first=True, bidirectional=True),
}
CELLS: dict[str, Callable[[], nn.RNNCellBase]] = {
    "LSTM": lambda: nn.LSTMCell(3, 4),
    "GRU": lambda: nn.GRUCell(3, 4),
    "RNN by tanh": lambda: nn.RNNCell(3, 4, bias=False),
    "RNN by relu": lambda: nn.RNNCell(3, 4, nonlinearity="relu"),
}


@pytest.mark.parametrize("name", RECURRENCES)
def test_a_recurrence_is_served_as_pytorch_runs_it(name: str) -> None:
    torch.manual_seed(0)
    model = Last(RECURRENCES[name]()).eval()
    assert_same(traced(model, SHAPE), SHAPE)
    assert_exported_same(model, SHAPE)


@pytest.mark.parametrize("name", CELLS)
def test_a_cell_is_served_as_pytorch_runs_it(name: str) -> None:
    torch.manual_seed(0)
    model = Stepwise(CELLS[name]()).eval()
    assert_same(traced(model, SHAPE), SHAPE)
    assert_exported_same(model, SHAPE)


class Sequences(nn.Module):
    """Sequences whose axis of steps comes first."""

    def __init__(self) -> None:
        super().__init__()
        self.recurrence = nn.LSTM(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.recurrence(x.transpose(0, 1))[0][-1]


def test_every_format_gives_one_bound() -> None:
    """The exporter writes the standard's own LSTM, which the other readers come to as well."""
    torch.manual_seed(0)
    model, x = Sequences().eval(), torch.zeros(SHAPE)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(model, (x,), buffer, dynamo=False)  # pyright: ignore[reportArgumentType]
    exports = (buffer.getvalue(), traced(model, SHAPE), exported(model, [x]))
    uppers = [certify_bytes(data).certificate.lipschitz.upper for data in exports]
    assert 0 < uppers[0] < 1000
    assert uppers[1:] == pytest.approx([uppers[0]] * 2, rel=1e-9)
    assert_same(scripted(model), SHAPE)


def test_other_recurrences_are_refused_by_name() -> None:
    class Started(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.recurrence = nn.GRU(3, 4, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.recurrence(x, torch.ones(1, 1, 4))[0]

    class Projected(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.recurrence = nn.LSTM(3, 4, batch_first=True, proj_size=2)

        def forward(self, x: Tensor) -> Tensor:
            return self.recurrence(x)[0]

    for model, operator, reason in ((Started(), "gru", "must be zero"), (Projected(), "lstm", "projected")):
        with pytest.raises(UnsupportedNode, match=reason) as caught:
            read(traced(model.eval(), SHAPE), SHAPE)
        assert caught.value.operator == operator
    weights = [torch.ones(4, 3), torch.ones(4, 4)]
    trained = Applied(lambda x: torch.rnn_tanh(x, torch.zeros(1, 1, 4), weights, False, 1, 0.5, True, False, True)[0])
    with pytest.raises(UnsupportedNode, match="at random"):
        read_exported(exported(trained, [torch.zeros(SHAPE)]), limits=LIMITS)
