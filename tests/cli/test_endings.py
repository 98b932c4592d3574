"""How commands end: exit codes, one line of explanation, never a traceback."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from onnx import TensorProto, helper

from service.commandline.interruption import first_ends_the_search
from tests.building import Model
from tests.cli.conftest import Commands

SCRIPT = str(Path(sys.executable).with_name("lipcert"))


def finished(*arguments: str, encoding: str = "utf-8") -> subprocess.CompletedProcess[bytes]:
    """Run the installed script in a process of its own."""
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    return subprocess.run([SCRIPT, *arguments], capture_output=True, env=environment)


def test_the_console_script_prints_json_and_nothing_else(lipcert: Commands) -> None:
    done = finished("evaluate", lipcert.model, "--inputs", lipcert.inputs, "--epsilon", "0.3", "--json")
    assert (done.returncode, done.stderr) == (0, b"")
    assert json.loads(done.stdout)["rows"] == 450 and done.stdout.count(b"\n") == 1


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--arithmetic", "float16"], "'float16' is not available; there is: float32, float64, real"),
        (["--method", "magic"], "'magic' is not available"),
        (["--task", "guess"], "'guess' is not available"),
        (["--scale", "0"], "--scale"),
        (["--scale", "nan"], "not a finite number"),
        (["--scale", "1/0"], "not a number"),
        (["--std", "1,-1"], "--std"),
        (["--mean", "a"], "--mean"),
        (["--layout", "CHWN"], "--layout"),
        (["--threshold", "2"], "--threshold"),
        (["--threshold", "0.5", "--task", "regression"], "--threshold"),
        (["--state", "/dev/null/state"], "--state"),
        (["--no-such-option"], "--no-such-option"),
    ],
)
def test_options_without_meaning_are_misuse(lipcert: Commands, options: list[str], named: str) -> None:
    result = lipcert("certify", lipcert.model, *options, "--json")
    assert (result.exit_code, result.stdout) == (2, "")
    # The message stands in a frame, which may break its lines, and may be coloured.
    message = re.sub(r"\x1b\[[0-9;]*m|│", " ", result.stderr)
    assert "".join(named.split()) in "".join(message.split())


@pytest.mark.parametrize(
    "arguments",
    [
        ["certify"],
        ["certify", "no-such-file.onnx"],
        ["certify", "."],
        ["predict", "{model}"],
        ["predict", "{model}", "--inputs", "no-such-file.npy"],
        ["predict", "{model}", "--inputs", "{inputs}", "--epsilon", "-1"],
        ["evaluate", "{model}", "--inputs", "{inputs}", "--epsilon", "inf"],
        ["evaluate", "{model}", "--inputs", "{inputs}", "--labels", "no-such-file.npy"],
        ["compare", "{model}", "--x", "{inputs}"],
        ["serve", "--port", "99999"],
        ["no-such-command"],
    ],
)
def test_what_is_missing_is_misuse(lipcert: Commands, arguments: list[str]) -> None:
    result = lipcert(*(text.format(model=lipcert.model, inputs=lipcert.inputs) for text in arguments))
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr and "Traceback" not in result.stderr


def test_a_refused_node_is_named(lipcert: Commands) -> None:
    node = helper.make_node("Sign", ["x"], ["y"], name="\x1b[2Jjump\nhere")
    tensors = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 3]) for name in "xy"]
    graph = helper.make_graph([node], "steps", tensors[:1], tensors[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    result = lipcert("certify", "-", "--json", stdin=model.SerializeToString())
    assert result.exit_code == 1
    document = json.loads(result.stdout)
    assert (document["error"], document["operator"], document["node"]) == ("unsupported_node", "Sign", node.name)
    assert document["message"] and document["reason"]
    # What the model says cannot steer the terminal, nor make two lines of one.
    (line,) = result.stderr.splitlines()
    assert line.startswith("lipcert: ") and "Sign" in line and line.isprintable()


@pytest.mark.parametrize("data", [b"", b"garbage", b"PK\x03\x04 an archive", b"\x08\x08cut"])
def test_bytes_that_are_no_model_are_refused(lipcert: Commands, data: bytes) -> None:
    document, _ = lipcert.refused("certify", "-", stdin=data)
    assert document["error"] in ("unknown_format", "malformed_model")


def test_a_table_command_is_refused_without_json(lipcert: Commands) -> None:
    result = lipcert("certify", lipcert.inputs)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("lipcert: ") and result.stderr.count("\n") == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize("arguments", [["operators"], ["operators", "--json"]])
def test_a_full_disk_ends_in_one_line(arguments: list[str]) -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run([SCRIPT, *arguments], stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 1
    assert done.stderr.startswith(b"lipcert: ") and done.stderr.count(b"\n") == 1


@pytest.mark.parametrize("arguments", [["operators"], ["operators", "--json"]])
def test_a_reader_that_went_away_ends_it_quietly(arguments: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as pipe:
        done = subprocess.run([SCRIPT, *arguments], stdout=pipe, stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (1, b"")


def test_a_terminal_without_greek_is_served() -> None:
    done = finished("operators", encoding="ascii")
    assert (done.returncode, done.stderr) == (0, b"") and done.stdout.isascii()


@pytest.mark.parametrize("read", [0, 1])
def test_an_interrupt_ends_it_quietly(lipcert: Commands, tmp_path: Path, read: int) -> None:
    """Interrupted while it waits for a model that never ends, and just as it starts to read it."""
    command = [SCRIPT, "certify", "-", "--state", str(tmp_path)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdin is not None
    # More than a pipe holds: once all is written, the command is reading.
    process.stdin.write(Path(lipcert.model).read_bytes()[: 2**17] * read)
    process.stdin.flush()
    if not read:
        wait_for_handler(process.pid)
    process.send_signal(signal.SIGINT)
    output, complaint = process.communicate(timeout=60)
    assert (process.returncode, output, complaint) == (130, b"", b"")
    assert not list(tmp_path.iterdir())


def test_the_first_interrupt_ends_the_search_alone(lipcert: Commands, tmp_path: Path) -> None:
    """Seen on a terminal; the search would go on for ten minutes."""
    portable = tmp_path / "certificate"
    command = [SCRIPT, "certify", lipcert.model, "--seconds", "600", "--certificate", portable, "--json"]
    terminal, stderr = os.openpty()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, env={**os.environ, "TERM": "xterm"})
    os.close(stderr)
    shown = b""
    while b"tightening: pair" not in shown:
        shown += os.read(terminal, 2**12)
    assert "L ≤ ".encode() in shown
    process.send_signal(signal.SIGINT)
    with contextlib.suppress(OSError):  # the end of a terminal
        while True:
            shown += os.read(terminal, 2**12)
    output, _ = process.communicate(timeout=60)
    os.close(terminal)
    assert process.returncode == 0 and b"the search is called off" in shown
    notes = json.loads(output)["notes"]
    assert any(note.startswith("search cancelled") for note in notes)
    assert lipcert.json("verify", portable, lipcert.model)["verdict"] == "holds"


def test_an_interrupt_outside_of_a_search_and_a_second_one_give_up() -> None:
    searches = False
    with pytest.raises(KeyboardInterrupt), first_ends_the_search(lambda: searches) as is_called_off:
        signal.raise_signal(signal.SIGINT)
    assert not is_called_off()
    searches = True
    with pytest.raises(KeyboardInterrupt), first_ends_the_search(lambda: searches) as is_called_off:
        signal.raise_signal(signal.SIGINT)
        assert is_called_off()
        searches = False
        signal.raise_signal(signal.SIGINT)


def wait_for_handler(pid: int) -> None:
    """Wait until the process catches SIGINT itself; before, Python's start-up decides what happens."""
    deadline = time.monotonic() + 60
    status = Path(f"/proc/{pid}/status")
    while time.monotonic() < deadline:
        caught = next(line for line in status.read_text().splitlines() if line.startswith("SigCgt"))
        maps = Path(f"/proc/{pid}/maps").read_text()
        if int(caught.split()[1], 16) >> (signal.SIGINT - 1) & 1 and "numpy" in maps:
            return
        time.sleep(0.01)
    raise AssertionError("the command did not start")


def test_serve_starts_the_server(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    command = [SCRIPT, "serve", "--port", str(port), "--data", str(tmp_path / "data")]
    environment = {**os.environ, "LIPCERT_DRAIN_SECONDS": "0"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        assert answers(f"http://127.0.0.1:{port}/health/live", process)
        second = finished("serve", "--port", "0", "--data", str(tmp_path / "data"))
        assert second.returncode == 1
        assert second.stderr.splitlines()[-1] == b"lipcert: the server did not start; its log says why"
        process.send_signal(signal.SIGTERM)
        process.wait(60)
    finally:
        process.kill()
        process.wait()


def answers(url: str, process: subprocess.Popen[bytes]) -> bool:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=10) as response:
                return response.status == 200
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.1)
    return False


def test_a_refusal_says_what_helps(lipcert: Commands, tmp_path: Path) -> None:
    model = Model(4)
    model.then("Exp")
    path = tmp_path / "exp.onnx"
    path.write_bytes(model.data())
    document, line = lipcert.refused("certify", path)
    assert document["remedy"] and line.endswith(f"; what helps: {document['remedy']}")
