"""`python -m service`: the server with its settings from the environment."""

import sys

from service.server import run
from service.settings import Settings

if __name__ == "__main__":
    if len(sys.argv) > 1:
        sys.exit("`python -m service` takes its settings from the environment; `lipcert serve --help` lists options")
    run(Settings())
