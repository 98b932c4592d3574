"""Print an image's own command or health check, one argument a line, from what `buildah inspect` says."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

IMAGE_PORT = "8080"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("command", "health"))
    parser.add_argument("description", type=Path)
    parser.add_argument("--port", required=True, help="put in the place of the image's own port")
    arguments = parser.parse_args()
    config = json.loads(arguments.description.read_text())["Docker"]["config"]
    if config.get("User", "").split(":")[0] in ("", "0", "root"):
        raise SystemExit("The image's user is root.")
    if arguments.what == "command":
        words = [*(config.get("Entrypoint") or []), *(config.get("Cmd") or [])]
    else:
        kind, *words = config["Healthcheck"]["Test"]
        if kind != "CMD":
            raise SystemExit(f"The image's health check is of kind {kind!r}, not CMD.")
    print("\n".join(word.replace(IMAGE_PORT, arguments.port) for word in words))


if __name__ == "__main__":
    main()
