"""Certifies the example model through a server of its own and shows one prediction with its certified radius.

Starts `lipcert serve` on a free port with a temporary data folder, sends it examples/digits.onnx, asks it
about one handwritten digit that the model was not trained on, and stops it again. It takes no arguments;
`make demo` runs it.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path
from typing import Any

import httpx

MODEL = Path(__file__).with_name("digits.onnx")
EPSILON = 0.3
SECONDS_TO_START = 120.0
SECONDS_TO_CERTIFY = 300.0
SECONDS_TO_STOP = 30.0

# Number 24 of scikit-learn's digits, held out from training by train_digits.py, in sixteenths of full ink.
DIGIT = [
    [0, 0, 0, 0, 12, 2, 0, 0],
    [0, 0, 0, 6, 14, 1, 0, 0],
    [0, 0, 4, 16, 7, 8, 0, 0],
    [0, 0, 13, 9, 0, 16, 6, 0],
    [0, 6, 16, 10, 11, 16, 0, 0],
    [0, 0, 5, 10, 13, 16, 0, 0],
    [0, 0, 0, 0, 6, 16, 0, 0],
    [0, 0, 0, 0, 12, 8, 0, 0],
]


def free_port() -> int:
    """A port that nothing on this machine's loopback listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start_server(port: int, data: Path) -> subprocess.Popen[bytes]:
    """The server as a user starts it, with its log kept beside its data."""
    command = Path(sys.executable).with_name("lipcert")
    with (data / "server.log").open("wb") as log:
        return subprocess.Popen(
            [str(command), "serve", "--host", "127.0.0.1", "--port", str(port), "--data", str(data)],
            stdout=log,
            stderr=subprocess.STDOUT,
            # Nothing is left to drain when the one client is done.
            env=os.environ | {"LIPCERT_DRAIN_SECONDS": "0"},
        )


def wait_until_ready(client: httpx.Client, server: subprocess.Popen[bytes]) -> None:
    """Returns once the server is ready.  Raises: SystemExit if it ended or took too long."""
    deadline = time.monotonic() + SECONDS_TO_START
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise SystemExit(f"The server ended with status {server.returncode} before it was ready.")
        try:
            if client.get("/health/ready").status_code == httpx.codes.OK:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    raise SystemExit(f"The server was not ready after {SECONDS_TO_START:.0f} seconds.")


def stop(server: subprocess.Popen[bytes]) -> None:
    """Ask the server to stop; end it if it does not."""
    if server.poll() is not None:
        return
    server.send_signal(signal.SIGTERM)
    try:
        server.wait(SECONDS_TO_STOP)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


def checked(response: httpx.Response) -> Any:
    """The JSON of a good answer.  Raises: SystemExit with the server's own words otherwise."""
    if response.is_error:
        raise SystemExit(f"{response.request.url} answered {response.status_code}: {response.text}")
    return response.json()


def shaped(pixels: list[float], shape: list[int]) -> Any:
    """The pixels as nested lists of `shape`, first axis outermost."""
    if len(shape) <= 1:
        return pixels
    step = len(pixels) // shape[0]
    return [shaped(pixels[i * step : (i + 1) * step], shape[1:]) for i in range(shape[0])]


def show_certificate(certificate: dict[str, Any]) -> None:
    """What was proved about the model."""
    bound, model = certificate["lipschitz"], certificate["model"]
    print(f"Model {model['name']}, version {model['version']}, SHA-256 {model['sha256'][:16]}…")
    print(f"  {bound['norm']} Lipschitz constant, proved: at most {bound['upper']:.6g}")
    print(f"  and some pair of inputs is stretched by at least {bound['lower']:.6g}")
    for layer in certificate["layers"]:
        print(f"  {layer['name']}: {layer['kind']}, norm at most {layer['upper']:.9g} by {layer['proof']}")
    arithmetic = f"Arithmetic: {certificate['arithmetic']['statement']}"
    print(textwrap.fill(arithmetic, 100, initial_indent="  ", subsequent_indent="  "))


def show_prediction(row: dict[str, Any]) -> None:
    """One digit, what the model says it is, and how far that is proved to hold."""
    print("\nA digit that the model has not seen:")
    for line in DIGIT:
        print("   " + "".join(" .:-=+*#%@"[ink * 9 // 16] * 2 for ink in line))
    print(f"Prediction: {row['label']}   (runner-up {row['runner_up']}, margin {row['margin']:.4g})")
    print(f"Certified radius: {row['radius']:.6g}   No image closer than this (L2) gets another label.")
    print(f"Certified at epsilon = {EPSILON}: {'yes' if row['certified'] else 'no'}")


def main() -> None:
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="lipcert-demo-") as folder:
        server = start_server(port, Path(folder))
        try:
            with httpx.Client(
                base_url=f"http://127.0.0.1:{port}", timeout=SECONDS_TO_CERTIFY, trust_env=False
            ) as client:
                wait_until_ready(client, server)
                with MODEL.open("rb") as file:
                    certificate = checked(client.post("/certify", files={"file": file}, data={"name": "digits"}))
                show_certificate(certificate)
                pixels = [ink / 16 for line in DIGIT for ink in line]
                row = shaped(pixels, certificate["model"]["inputs"][0]["shape"][1:])
                query = {"model": "digits", "inputs": [row], "epsilon": EPSILON}
                show_prediction(checked(client.post("/predict", json=query))["rows"][0])
        except SystemExit:
            print((Path(folder) / "server.log").read_text(errors="replace")[-4000:], file=sys.stderr)
            raise
        finally:
            stop(server)


if __name__ == "__main__":
    main()
