"""A model file -> a certified model, with progress and, if asked for, a folder of kept state."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path

from certifier.certification import CertifiedModel, certify
from certifier.checking import check
from certifier.documents import ModelCheck
from certifier.limits import Limits
from certifier.prediction import Predictor
from certifier.progress import Progress
from certifier.search.state import SearchState
from service.commandline.failures import misuse
from service.commandline.files import STDIN, read_model_file
from service.commandline.folder import StateFolder, unkept_seal
from service.commandline.interruption import first_ends_the_search
from service.commandline.options import Certifying, Typed
from service.commandline.output import stages, warn
from service.uploads import default_name

VERSION = 1


def certify_file(model: str, asked: Certifying) -> CertifiedModel:
    """Certify the model in the file `model`, named after it, as asked.

    Raises: CertifierError; typer.BadParameter if a file cannot be opened.
    """
    options = asked.options()
    # Nobody has to wait for a command longer than he likes.
    limits = Limits(seconds=math.inf)
    data = read_model_file(model, limits)
    inputs = None if asked.calibration is None else _read_calibration(asked.calibration, limits)
    name = default_name("" if model == STDIN else Path(model).name, hashlib.sha256(data).hexdigest())
    kept = None if asked.state is None else _open(asked.state)
    latest: Progress | None = None
    with stages("reading the model") as show, first_ends_the_search(lambda: _is_searching(latest)) as is_cancelled:

        def tell(news: Progress) -> None:
            nonlocal latest
            latest = news
            show(news)

        certified = certify(
            data,
            name=name,
            version=VERSION,
            options=options,
            limits=limits,
            state=SearchState() if kept is None else kept.read(name),
            seal=unkept_seal() if kept is None else kept.seal(),
            progress=tell,
            calibration=inputs,
            is_cancelled=is_cancelled,
        )
    if kept is not None:
        try:
            kept.keep(name, certified.state)
        except OSError as error:
            warn(f"the search state is not kept: {error}")
    return certified


def _is_searching(latest: Progress | None) -> bool:
    return latest is not None and latest.method is not None


def check_file(model: str, asked: Typed) -> ModelCheck:
    """What certifying the model in the file `model` would refuse.

    Raises: ResourceLimitExceeded for a file over the limit; typer.BadParameter if it cannot be opened.
    """
    options, limits = asked.options(), Limits()
    return check(read_model_file(model, limits), options=options, limits=limits)


def predictor_of(certified: CertifiedModel) -> Predictor:
    """The certified model, ready to answer."""
    return Predictor(
        certificate=certified.certificate, served_model=certified.served_model, constants=certified.constants
    )


def _read_calibration(path: Path, limits: Limits) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(limits.calibration_bytes + 1)
    except OSError as error:
        raise misuse("--calibration", f"{path}: {error.strerror}") from None


def _open(path: Path) -> StateFolder:
    try:
        return StateFolder(path)
    except OSError as error:
        raise misuse("--state", f"{path}: {error.strerror}") from None
