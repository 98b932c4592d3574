"""`python -m service`: the server with its settings from the environment."""

from service.server import run
from service.settings import Settings

if __name__ == "__main__":
    run(Settings())
