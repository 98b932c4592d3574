"""The engine: telemetry is off before it is first imported, and nothing is fused behind the bound's back."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

MODEL = Path(__file__).parents[2] / "examples" / "digits.onnx"

WATCHED_IMPORT = """
import importlib.abc, os, sys

class Watcher(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "onnxruntime":
            print("imported with", os.environ.get("ORT_DISABLE_TELEMETRY"))
        return None

sys.meta_path.insert(0, Watcher())
from certifier import CertifyOptions, Limits, Seal, SearchState, certify
data = open(sys.argv[1], "rb").read()
certify(data, name="m", version=1, options=CertifyOptions(), limits=Limits(), state=SearchState(),
        seal=Seal(bytes(32)), progress=lambda news: None)
links = [os.readlink(f"/proc/self/fd/{entry}") for entry in os.listdir("/proc/self/fd") if
         os.path.islink(f"/proc/self/fd/{entry}")]
print("sockets", sum(link.startswith("socket:") for link in links))
"""


def test_telemetry_is_off_before_the_engine_is_imported_and_no_socket_is_opened() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    done = subprocess.run(
        [sys.executable, "-c", WATCHED_IMPORT, str(MODEL)], capture_output=True, text=True, env=environment, check=False
    )
    assert (done.returncode, done.stdout.split("\n")[:2]) == (0, ["imported with 1", "sockets 0"]), done.stderr
