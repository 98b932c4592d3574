"""What the service's tests share: models made on the spot, a client in this process, a server in another."""

from __future__ import annotations

import itertools
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from onnx import TensorProto, helper, numpy_helper

from service.app import create_app
from service.settings import Settings

ROOT = Path(__file__).resolve().parents[2]


def dense_network(*widths: int, seed: int = 0, operator: str = "Relu") -> bytes:
    """A dense classifier with random weights, `operator` between its layers, as ONNX bytes."""
    random = np.random.default_rng(seed)
    nodes, constants, value = [], [], "x"
    for index, (fan_in, fan_out) in enumerate(itertools.pairwise(widths)):
        weight = random.normal(size=(fan_in, fan_out)).astype(np.float32) / np.float32(np.sqrt(fan_in))
        bias = random.normal(size=fan_out).astype(np.float32)
        constants += [
            numpy_helper.from_array(weight, f"w{index}"),
            numpy_helper.from_array(bias, f"b{index}"),
        ]
        last = index == len(widths) - 2
        nodes.append(helper.make_node("Gemm", [value, f"w{index}", f"b{index}"], ["y" if last else f"h{index}"]))
        if not last:
            nodes.append(helper.make_node(operator, [f"h{index}"], [f"a{index}"], name=f"between{index}"))
            value = f"a{index}"
    graph = helper.make_graph(
        nodes,
        "dense",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", widths[0]])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", widths[-1]])],
        constants,
    )
    opset = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString()


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the application inside this process, with its lifespan."""
    app = create_app(settings)
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        hooks = {"response": [documented_in(app.openapi())]}
        async with httpx.AsyncClient(
            transport=transport, base_url="http://lipcert", timeout=120, event_hooks=hooks
        ) as client:
            yield client


def documented_in(document: dict[str, Any]) -> Callable[[httpx.Response], Awaitable[None]]:
    """A check that every answer's status and media type stand in the OpenAPI document."""

    async def check(response: httpx.Response) -> None:
        path, method = response.request.url.path, response.request.method.lower()
        for template, operations in document["paths"].items():
            if re.fullmatch(re.sub(r"\{[^}]+\}", "[^/]+", template), path) and method in operations:
                described = operations[method]["responses"]
                assert str(response.status_code) in described, f"{method} {template}: {response.status_code}"
                media_type = response.headers["content-type"].split(";")[0]
                assert media_type in described[str(response.status_code)]["content"]

    return check


PRODUCT = '{"method": "product"}'
"""Options of uploads whose search for tighter bounds would only take time."""


def upload_form(data: bytes, filename: str = "model.onnx", **fields: str) -> dict[str, Any]:
    """The arguments of a multipart upload."""
    return {"files": {"file": (filename, data)}, "data": fields}


class ServerProcess:
    """A server in a process of its own, to be killed as the operating system kills."""

    def __init__(self, data_dir: Path, **settings: object) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            self.port = taken.getsockname()[1]
        self.data_dir = data_dir
        self._log = data_dir.parent / f"server-{self.port}.log"
        environment = {name: value for name, value in os.environ.items() if not name.startswith("LIPCERT_")}
        environment |= {"LIPCERT_DATA_DIR": str(data_dir), "LIPCERT_PORT": str(self.port)}
        environment |= {f"LIPCERT_{name.upper()}": str(value) for name, value in settings.items()}
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "service"],
                env=environment, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip
        self.url = f"http://127.0.0.1:{self.port}"
        self.client = httpx.Client(base_url=self.url, timeout=120)
        self._wait_until_ready()

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                if self.client.get("/health/ready").status_code == 200:
                    return
            except httpx.TransportError:
                time.sleep(0.1)
        self.kill()
        raise AssertionError(f"the server did not start:\n{self.log()}")

    def log(self) -> str:
        """What the server wrote."""
        return self._log.read_text()

    def kill(self) -> None:
        """SIGKILL: nothing of the server gets to run any more."""
        self.client.close()
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> int:
        """SIGTERM and the exit status."""
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(60)
        self.client.close()
        return status


def files_below(folder: Path) -> list[str]:
    """Every file under `folder`, by relative path."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def wait_for(condition: Callable[[], object], what: str) -> None:
    """Return once `condition` holds; fail after a minute without it."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, f"never happened: {what}"
        time.sleep(0.005)


def in_background(function: Callable[[], object]) -> threading.Thread:
    """`function` in a thread; that its server is killed meanwhile is no failure."""

    def quietly() -> None:
        try:
            function()
        except httpx.TransportError:
            pass  # the server was killed under the request

    thread = threading.Thread(target=quietly, daemon=True)
    thread.start()
    return thread


def descendants(root: int) -> list[int]:
    """Process ids below `root`, from /proc."""
    parents: dict[int, int] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                fields = (folder / "stat").read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            parents[int(folder.name)] = int(fields[1])
    found, frontier = [], [root]
    while frontier:
        frontier = [pid for pid, parent in parents.items() if parent in frontier]
        found += frontier
    return found


def is_running(pid: int) -> bool:
    """The process exists and is no zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"
