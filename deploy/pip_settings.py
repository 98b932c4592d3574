"""Write pip's settings on this machine as one pip.conf, and print the local folders that they name."""

from __future__ import annotations

import argparse
import ast
import configparser
import re
import subprocess
import sys
from pathlib import Path

HANDED_ON = (
    "index-url",
    "extra-index-url",
    "find-links",
    "trusted-host",
    "default-timeout",
    "timeout",
    "proxy",
)


def settings() -> dict[str, str]:
    """The settings that say where packages come from; the environment wins over files."""
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], check=True, capture_output=True, text=True
    ).stdout
    found: dict[str, str] = {}
    from_environment: dict[str, str] = {}
    for line in listed.splitlines():
        match = re.fullmatch(r"(:env:|global|install)\.([\w-]+)=(.*)", line)
        if match and match[2] in HANDED_ON:
            target = from_environment if match[1] == ":env:" else found
            target[match[2]] = str(ast.literal_eval(match[3]))
    return found | from_environment


def local_folders(values: dict[str, str]) -> list[str]:
    """Folders of this machine that the settings name, as a path or a file URL."""
    words = (word.removeprefix("file://") for value in values.values() for word in value.split())
    # A folder of an index links to files beside it: its parent is what has to be there.
    folders = {Path(word) for word in words if word.startswith("/") and Path(word).is_dir()}
    return sorted({str(folder.parent if folder.name == "simple" else folder) for folder in folders})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", type=Path, required=True)
    parser.add_argument("--bundle", required=True, help="the certificate bundle's path inside the image")
    arguments = parser.parse_args()
    values = settings()
    config = configparser.ConfigParser(interpolation=None)
    config["global"] = values | {"cert": arguments.bundle}
    with arguments.write.open("w") as file:
        config.write(file)
    # Readable for every user of the build, and gone with the check's folder.
    arguments.write.chmod(0o644)
    print("\n".join(local_folders(values)))


if __name__ == "__main__":
    main()
