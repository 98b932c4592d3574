"""Trains a digit classifier whose certified L2 radii are worth having, and writes it as ONNX.

Claim. Every layer before the last is 1-Lipschitz in L2 and close to attaining it, so the plain product
bound  L_tj = prod_i ||W_i|| * ||w_t - w_j||  is nearly free of slack, and

    radius(x) = min_{j != t} (z_t(x) - z_j(x)) / L_tj

certifies the label t of x against every perturbation of a smaller L2 norm.

Network. Three layers with orthonormal columns (Cayley parametrisation; the first maps 64 pixels into a
wider space without changing lengths), each followed by MaxMin, then a free linear head of ten rows.

Why MaxMin is written as PRelu. MaxMin sorts pairs, (a, b) -> (max(a, b), min(a, b)). An analyser without
a rule for that pattern sees two live branches joined by Max and Min and has to multiply by more than 1.
With the orthogonal, symmetric R = [[1, 1], [1, -1]] / sqrt(2) and (s, d) = R (a, b),

    max(a, b) = (s + |d|) / sqrt(2),    min(a, b) = (s - |d|) / sqrt(2),

that is  MaxMin = R o (s, d -> s, |d|) o R.  PRelu(x) = x for x >= 0 and slope * x otherwise, so slope +1 is
the identity, slope -1 is the absolute value, and the middle map is one PRelu whose slopes lie in [-1, 1].
Both R are orthogonal and disappear into the neighbouring matrices: W_i R keeps W_i's singular values, and
R W_i keeps them too. The folded network computes the same functions with the same norms, and any network
in folded form unfolds into one with MaxMin, so it is trained in folded form from the start. The graph is
Gemm, PRelu, ..., Gemm: a product of norms over elementwise slopes finds the constant 1 by itself.

Loss. Cross-entropy over radii, not logits: T * log(1 + sum_{j != t} exp((target - radius_j) / T)), where
radius_j = (z_t - z_j) / ||w_t - w_j|| and the `target` is a little above the radius that is to be certified.
Scaling the head leaves radius_j unchanged, so the loss cannot be lowered by large weights.

Units: pixels divided by 16, in [0, 1]; radii are L2 distances in those units.
Arithmetic: training float32; weights orthogonalised again in float64 before they are rounded to float32.
Reference: Anil, Lucas and Grosse 2019 (arXiv:1811.05381) for norm-preserving networks and sorted
activations; Tsuzuku, Sato and Sugiyama 2018 (arXiv:1802.04034) for margins divided by Lipschitz constants.
"""

from __future__ import annotations

import argparse
import math
import os
import time
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.nn.utils.parametrizations import orthogonal
from torch.nn.utils.parametrize import cached

CLASSES = 10
PIXELS = 64
SPLIT_SEED = 0
HELD_OUT_SHARE = 0.25
OPSET = 17
Layer = tuple[NDArray[np.float32], NDArray[np.float32]]


def scaled_digits() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The 1797 bundled digits as rows in [0, 1], exactly: sixteenths are float32 numbers."""
    images, labels = load_digits(return_X_y=True)
    return (images / 16.0).astype(np.float32), labels.astype(np.int64)


def split_indices(labels: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Training and held-out row numbers: disjoint, exhaustive, stratified and the same at every call."""
    training, held_out = train_test_split(
        np.arange(len(labels)), test_size=HELD_OUT_SHARE, stratify=labels, random_state=SPLIT_SEED
    )
    return np.sort(training), np.sort(held_out)


def validation_indices(
    training: NDArray[np.int64], labels: NDArray[np.int64], fold: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """A split of the training rows alone, so that settings are chosen without the held-out images."""
    inner, validation = train_test_split(
        training, test_size=HELD_OUT_SHARE, stratify=labels[training], random_state=fold + 1
    )
    return np.asarray(inner), np.asarray(validation)


def folded_maxmin_slopes(width: int) -> NDArray[np.float32]:
    """PRelu slopes of MaxMin after rotation: +1 (identity) on the sums, -1 (|.|) on the differences."""
    return np.repeat(np.array([1.0, -1.0], dtype=np.float32), width // 2)


class FoldedMaxMin(nn.Module):
    """|f(x) - f(y)| = |x - y| on half of the coordinates and <= on the others: slopes in [-1, 1]."""

    slopes: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("slopes", torch.from_numpy(folded_maxmin_slopes(width)))

    def forward(self, x: Tensor) -> Tensor:
        return torch.where(x >= 0, x, self.slopes * x)


class MarginNetwork(nn.Module):
    """Orthogonal layers with folded MaxMin, then a free linear head."""

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        fan_ins = [PIXELS] + [width] * (depth - 1)
        self.hidden = nn.ModuleList(orthogonal(nn.Linear(fan_in, width), orthogonal_map="cayley") for fan_in in fan_ins)
        self.activation = FoldedMaxMin(width)
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.hidden:
            x = self.activation(layer(x))
        return self.head(x)


def pair_radii(logits: Tensor, head_weight: Tensor, labels: Tensor) -> Tensor:
    """radius_j = (z_t - z_j) / ||w_t - w_j|| for the given labels t, and +inf at j = t. Shapes: [N, 10]."""
    distances = torch.linalg.vector_norm(head_weight[labels][:, None] - head_weight[None], dim=-1)
    own = nn.functional.one_hot(labels, CLASSES).bool()
    margins = logits.gather(1, labels[:, None]) - logits
    return (margins / distances.masked_fill(own, 1.0)).masked_fill(own, math.inf)


def radius_loss(radii: Tensor, target: float, temperature: float) -> Tensor:
    """T * log(1 + sum_j exp((target - radius_j) / T)), at least max(0, target - min_j radius_j)."""
    excess = (target - radii) / temperature
    return temperature * torch.logsumexp(nn.functional.pad(excess, (1, 0)), dim=1).mean()


def train(network: MarginNetwork, images: Tensor, labels: Tensor, settings: argparse.Namespace) -> None:
    """Adam with a one-cycle rate over the training rows, each drawn with a little Gaussian noise."""
    batches = math.ceil(len(images) / settings.batch)
    optimiser = torch.optim.Adam(network.parameters(), settings.rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, settings.rate, total_steps=settings.epochs * batches)
    for epoch in range(settings.epochs):
        total = 0.0
        for rows in torch.randperm(len(images)).split(settings.batch):
            noisy = images[rows] + settings.noise * torch.randn(len(rows), PIXELS)
            radii = pair_radii(network(noisy), network.head.weight, labels[rows])
            loss = radius_loss(radii, settings.target, settings.temperature)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            total += loss.item() * len(rows)
        if (epoch + 1) % max(1, settings.epochs // 10) == 0:
            print(f"epoch {epoch + 1:4d}  loss {total / len(images):.4f}", flush=True)


def baked_layers(network: MarginNetwork) -> list[Layer]:
    """Plain float32 weights; hidden ones are first replaced by the nearest orthogonal matrix in float64."""
    layers: list[Layer] = []
    with torch.no_grad():
        for layer in network.hidden:
            assert isinstance(layer, nn.Linear)
            left, _, right = np.linalg.svd(layer.weight.double().numpy(), full_matrices=False)
            layers.append(((left @ right).astype(np.float32), layer.bias.numpy().astype(np.float32)))
        layers.append((network.head.weight.numpy(), network.head.bias.numpy()))
    return layers


def onnx_model(layers: list[Layer]) -> onnx.ModelProto:
    """Gemm, PRelu, ..., Gemm from `image` [N, 64] to `logits` [N, 10], weights inside the file."""
    nodes, initialisers, current = [], [], "image"
    for number, (weight, bias) in enumerate(layers):
        last = number == len(layers) - 1
        name = "head" if last else f"hidden{number}"
        output = "logits" if last else f"{name}.sum"
        initialisers += [
            numpy_helper.from_array(weight, f"{name}.weight"),
            numpy_helper.from_array(bias, f"{name}.bias"),
        ]
        inputs = [current, f"{name}.weight", f"{name}.bias"]
        nodes.append(helper.make_node("Gemm", inputs, [output], name=name, transB=1))
        current = output
        if not last:
            slopes = folded_maxmin_slopes(len(weight))
            initialisers.append(numpy_helper.from_array(slopes, f"{name}.slopes"))
            current = f"{name}.maxmin"
            nodes.append(helper.make_node("PRelu", [output, f"{name}.slopes"], [current], name=current))
    graph = helper.make_graph(
        nodes,
        "digits",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", PIXELS])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", CLASSES])],
        initialisers,
    )
    opsets = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(graph, producer_name="train_digits", opset_imports=opsets, ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model


def executed_logits(model: onnx.ModelProto, images: NDArray[np.float32]) -> NDArray[np.float32]:
    """The logits that onnxruntime computes. Shapes: [N, 64] -> [N, 10]."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime  # after the setting, which it reads when it is imported

    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["logits"], {"image": images})[0])


def product_radii(layers: list[Layer], logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """min_j (z_t - z_j) / (prod_i ||W_i|| * ||w_t - w_j||) for the predicted t. Arithmetic: nearest."""
    norms = [np.linalg.norm(weight.astype(np.float64), 2) for weight, _ in layers[:-1]]
    head = layers[-1][0].astype(np.float64)
    exact = logits.astype(np.float64)
    predicted = exact.argmax(axis=1)
    distances = np.linalg.norm(head[predicted][:, None] - head[None], axis=-1) * math.prod(norms)
    margins = exact[np.arange(len(exact)), predicted][:, None] - exact
    own = np.arange(CLASSES)[None] == predicted[:, None]
    return np.where(own, math.inf, margins / np.where(own, 1.0, distances)).min(axis=1)


def report(
    name: str,
    logits: NDArray[np.float32],
    labels: NDArray[np.int64],
    radii: NDArray[np.float64],
    epsilon: float,
) -> None:
    """Prints accuracy, certified accuracy (correct and radius > epsilon), mean and median radius."""
    correct = logits.argmax(axis=1) == labels
    certified = correct & (radii > epsilon)
    print(
        f"{name}: {len(labels)} images, accuracy {correct.mean():.2%}, certified at {epsilon:g} "
        f"{certified.mean():.2%}, mean radius {radii.mean():.4f}, median {np.median(radii):.4f}"
    )


def parsed_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Train the certifiable digit classifier and export it to ONNX.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--output", type=Path, default=Path(__file__).resolve().parent, help="folder to fill")
    parser.add_argument(
        "--validate",
        type=int,
        metavar="FOLD",
        help="hold out a part of the training rows instead, and write nothing",
    )
    parser.add_argument("--width", type=int, default=112, help="even and at least 64")
    parser.add_argument("--depth", type=int, default=3, help="orthogonal layers")
    parser.add_argument("--epochs", type=int, default=1500)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rate", type=float, default=5e-3, help="peak learning rate")
    parser.add_argument("--target", type=float, default=0.4, help="radius the loss asks for")
    parser.add_argument("--temperature", type=float, default=0.1, help="in units of radius")
    parser.add_argument("--noise", type=float, default=0.1, help="deviation of the training noise")
    parser.add_argument("--epsilon", type=float, default=0.3, help="radius reported on")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.width < PIXELS or arguments.width % 2:
        parser.error("--width has to be even and at least 64")
    return arguments


def main() -> None:
    settings = parsed_arguments()
    torch.manual_seed(settings.seed)
    torch.set_num_threads(1)  # the layers are small, and one order of summation repeats exactly
    images, labels = scaled_digits()
    training, held_out = split_indices(labels)
    if settings.validate is not None:
        training, held_out = validation_indices(training, labels, settings.validate)
    network = MarginNetwork(settings.width, settings.depth)
    start = time.monotonic()
    train(network, torch.from_numpy(images[training]), torch.from_numpy(labels[training]), settings)
    print(f"trained in {time.monotonic() - start:.0f} s")

    layers = baked_layers(network)
    model = onnx_model(layers)
    with torch.no_grad(), cached():
        trained = network(torch.from_numpy(images)).numpy()
    executed = executed_logits(model, images)
    difference = float(np.abs(trained - executed).max() / np.abs(trained).max())
    print(f"exported and trained logits differ by at most {difference:.1e} of the largest logit")
    if difference > 1e-5:
        raise SystemExit("the exported model computes something else; nothing was written")
    for name, rows in (("training", training), ("held out", held_out)):
        report(name, executed[rows], labels[rows], product_radii(layers, executed[rows]), settings.epsilon)
    if settings.validate is None:
        onnx.save_model(model, settings.output / "digits.onnx")
        np.save(settings.output / "digits_inputs.npy", images[held_out])
        np.save(settings.output / "digits_labels.npy", labels[held_out])


if __name__ == "__main__":
    main()
