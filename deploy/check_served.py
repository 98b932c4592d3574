"""Certify a model through a running server, with Python's own library; exit 1 unless the bound is finite.

The model goes as a raw body, so that both ways of uploading are tried: the demo sends a form.
"""

from __future__ import annotations

import argparse
import json
import math
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from processes import status_field


def answer(url: str, *, body: bytes | None, content_type: str, seconds: float) -> Any:
    """The JSON answer to a GET, or to a POST of `body`."""
    request = urllib.request.Request(url, data=body, headers={"Content-Type": content_type})
    try:
        with urllib.request.urlopen(request, timeout=seconds) as response:
            return json.load(response)
    except urllib.error.HTTPError as error:
        raise SystemExit(f"{url} answered {error.code}: {error.read().decode(errors='replace')}") from error


def wait_until_ready(url: str, *, seconds: float, while_pid: int | None) -> None:
    """Returns once the server is ready; gives up when time is over or the process behind it has ended."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"{url}/health/ready", timeout=5):
                return
        except OSError:
            if while_pid is not None and status_field(while_pid, "State")[:1] in ("", "Z"):
                raise SystemExit("The server ended before it was ready.") from None
            time.sleep(0.5)
    raise SystemExit(f"The server was not ready within {seconds:.0f} seconds.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=180.0)
    parser.add_argument("--while-pid", type=int)
    arguments = parser.parse_args()

    wait_until_ready(arguments.url, seconds=arguments.seconds, while_pid=arguments.while_pid)
    name = arguments.model.stem
    certificate = answer(
        f"{arguments.url}/certify?name={name}",
        body=arguments.model.read_bytes(),
        content_type="application/octet-stream",
        seconds=arguments.seconds,
    )
    upper = certificate["lipschitz"]["upper"]
    if not (isinstance(upper, float) and math.isfinite(upper) and upper > 0):
        raise SystemExit(f"The proved Lipschitz constant is {upper!r}, not a positive finite number.")
    shape = certificate["model"]["inputs"][0]["shape"]
    row: Any = 0.5
    for size in reversed(shape[1:]):
        row = [row] * size
    prediction = answer(
        f"{arguments.url}/predict",
        body=json.dumps({"model": name, "inputs": [row], "epsilon": 0.1}).encode(),
        content_type="application/json",
        seconds=arguments.seconds,
    )
    print(f"{name}: Lipschitz constant at most {upper}; a grey input answers {json.dumps(prediction)[:300]}")


if __name__ == "__main__":
    main()
