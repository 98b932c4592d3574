"""What computes the answers of a certified model in this process, as certificates describe it."""

from __future__ import annotations

import numpy as np

from certifier.documents import Arithmetic, EngineDescription
from certifier.engine import describe_engine, engine_name
from certifier.executions import Execution


def engine_of(execution: Execution) -> str:
    """What computes the answers."""
    return f"numpy {np.__version__}, float64 evaluation" if execution.is_evaluated else engine_name()


def description_of(execution: Execution) -> EngineDescription:
    """What computes the answers, in full."""
    found = describe_engine()
    options = {} if execution.is_evaluated else found.options
    return EngineDescription(name=engine_of(execution), options=options, cpu=found.cpu)


def arithmetic_of(execution: Execution, because: str | None) -> Arithmetic:
    """What answers say of their arithmetic; `because` tells why no radius can be certified."""
    return execution.document(f"the answers that {engine_of(execution)} computes in {execution.name}", because)
