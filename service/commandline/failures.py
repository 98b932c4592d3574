"""How a command ends: 0 done, 1 refused, 2 misuse, 3 not finished, 130 interrupted; never with a traceback."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import typer

from service.commandline.interruption import INTERRUPTED, interruptible
from service.commandline.output import OutputLost, complain, print_json, single_line

REFUSED = 1
NOT_FINISHED = 3


@contextmanager
def ending_well(*, as_json: bool) -> Iterator[None]:
    """Run a command; whatever goes wrong ends in its exit code and one line on standard error."""
    # All of the library at once, while an interrupt may still end the process on the spot.
    import certifier.evaluation  # noqa: F401
    import service.commandline.modelling  # noqa: F401
    from certifier.errors import CertifierError, NotFinished

    try:
        with interruptible():
            yield
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
    except NotFinished as error:
        raise _refused(error.code, str(error), error.details(), as_json, exit_code=NOT_FINISHED) from None
    except CertifierError as error:
        raise _refused(error.code, str(error), error.details(), as_json) from None
    except MemoryError:
        raise _refused("out_of_memory", "this takes more memory than there is", {}, as_json) from None
    except OutputLost as error:
        complain(str(error))
        raise typer.Exit(REFUSED) from None
    except OSError as error:
        if error.errno == errno.EPIPE:  # the reader went away; nothing is left to say, and nobody to say it to
            raise
        raise _refused("system_error", str(error), {}, as_json) from None
    except (typer.Exit, typer.Abort, typer.BadParameter):
        raise
    except Exception as error:  # noqa: BLE001  # a defect of ours is reported like a refusal, without its traceback
        message = f"a defect of Lipcert, please report it: {type(error).__name__}: {error}"
        raise _refused("internal_error", message, {}, as_json) from None


def misuse(option: str, reason: object) -> typer.BadParameter:
    """The error to raise when `option` cannot mean anything; ends with exit code 2."""
    return typer.BadParameter(single_line(str(reason)), param_hint=f"'{option}'")


def _refused(
    code: str, message: str, details: dict[str, object], as_json: bool, *, exit_code: int = REFUSED
) -> typer.Exit:
    remedy = details.get("remedy")
    complain(f"{message}; what helps: {remedy}" if remedy else message)
    if as_json:
        with suppress(OutputLost):  # what matters has been said on standard error
            print_json(json.dumps({"error": code, "message": message, **details}))
    return typer.Exit(exit_code)
