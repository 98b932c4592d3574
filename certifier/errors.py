"""Everything the library refuses, as one tree of exceptions; it knows no HTTP.

    CertifierError
    ├── MalformedModel            the bytes are not the format they claim to be
    │   └── UnknownFormat         no reader knows the bytes
    ├── ResourceLimitExceeded     a limit of `Limits`: names the resource, the limit and the actual value
    ├── UnsupportedModel          well-formed, but no sound bound is known for it
    │   └── UnsupportedNode       … because of one node, which it names
    ├── InvalidInput              an array, option or parameter of the caller's that cannot be used
    ├── SelfTestFailed            the bounded network and the served engine disagree
    ├── NotProved                 the checker refused every witness
    ├── CertificateRefused        a certificate file that does not hold: says at which step
    ├── NotFinished               time was up before a certificate file was proved or refused
    └── StateCorrupted            kept search state that cannot be read

`code` is stable and machine-readable; the message is for people.  `remedy`, where there is one, says what the user can
do about it: the option to set, or how to export the model instead.
"""

from __future__ import annotations


class CertifierError(Exception):
    """Base of every refusal; `code` names its kind for machines, `details` carries its facts."""

    code = "certifier_error"
    remedy: str | None = None

    def details(self) -> dict[str, object]:
        """The facts of the refusal as JSON-ready values."""
        return {}


class MalformedModel(CertifierError):
    """The bytes do not hold what their format promises."""

    code = "malformed_model"


class UnknownFormat(MalformedModel):
    """No reader recognises the bytes."""

    code = "unknown_format"


class ResourceLimitExceeded(CertifierError):
    """Reading or certifying would take more of `resource` than `limit` allows."""

    code = "resource_limit_exceeded"

    def __init__(self, resource: str, *, limit: int | float, actual: int | float, where: str = "") -> None:
        self.resource, self.limit, self.actual, self.where = resource, limit, actual, where
        place = f" at {where}" if where else ""
        super().__init__(f"{resource}{place}: {actual} is over the limit of {limit}")

    def __reduce__(self) -> tuple[object, ...]:
        # Keyword-only arguments do not survive the default pickling between processes.
        return (_rebuild_limit, (self.resource, self.limit, self.actual, self.where))

    def details(self) -> dict[str, object]:
        return {"resource": self.resource, "limit": self.limit, "actual": self.actual, "where": self.where}


def _rebuild_limit(resource: str, limit: int | float, actual: int | float, where: str) -> ResourceLimitExceeded:
    return ResourceLimitExceeded(resource, limit=limit, actual=actual, where=where)


class UnsupportedModel(CertifierError):
    """The model is well-formed, but no sound bound is known for it."""

    code = "unsupported_model"

    def __init__(self, message: str, *, remedy: str | None = None) -> None:
        super().__init__(message)
        self.remedy = remedy

    def details(self) -> dict[str, object]:
        return {"remedy": self.remedy}


class UnsupportedNode(UnsupportedModel):
    """The node named `node`, of operator `operator`, has no sound bound: `reason` says why."""

    code = "unsupported_node"

    def __init__(self, node: str, operator: str, reason: str, *, remedy: str | None = None) -> None:
        self.node, self.operator, self.reason = node, operator, reason
        super().__init__(f"node {node!r} ({operator}): {reason}", remedy=remedy)

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (self.node, self.operator, self.reason), {"remedy": self.remedy})

    def details(self) -> dict[str, object]:
        return {"node": self.node, "operator": self.operator, "reason": self.reason, "remedy": self.remedy}


class InvalidInput(CertifierError):
    """A value of the caller's cannot be used; `field` says which, the message says why."""

    code = "invalid_input"

    def __init__(self, field: str, reason: str) -> None:
        self.field, self.reason = field, reason
        super().__init__(f"{field}: {reason}")

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (self.field, self.reason))

    def details(self) -> dict[str, object]:
        return {"field": self.field}


class SelfTestFailed(CertifierError):
    """One of the four self-tests failed, so nothing is certified; `check` names it."""

    code = "self_test_failed"

    def __init__(self, check: str, reason: str) -> None:
        self.check, self.reason = check, reason
        super().__init__(f"self-test {check!r} failed: {reason}")

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (self.check, self.reason))

    def details(self) -> dict[str, object]:
        return {"check": self.check}


class NotProved(CertifierError):
    """The checker accepted no witness, so there is no bound to return."""

    code = "not_proved"


class CertificateRefused(CertifierError):
    """A certificate file does not hold for the model; `step` says where verifying ended, the message why."""

    code = "certificate_refused"

    def __init__(self, step: str, reason: str) -> None:
        self.step, self.reason = step, reason
        super().__init__(f"the certificate is refused at the step {step!r}: {reason}")

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (self.step, self.reason))

    def details(self) -> dict[str, object]:
        return {"step": self.step, "reason": self.reason}


class NotFinished(CertifierError):
    """After `seconds` the proof had only come to the step `where`: nothing is known of what it would have shown."""

    code = "not_finished"
    remedy = "give it more time: `--seconds` of `lipcert verify`, `Limits.seconds` in the library"

    def __init__(self, where: str, *, seconds: float) -> None:
        self.where, self.seconds = where, seconds
        super().__init__(f"not finished within {seconds:g} seconds: {where} was next; nothing is proved or refused")

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild_not_finished, (self.where, self.seconds))

    def details(self) -> dict[str, object]:
        return {"where": self.where, "seconds": self.seconds, "remedy": self.remedy}


def _rebuild_not_finished(where: str, seconds: float) -> NotFinished:
    return NotFinished(where, seconds=seconds)


class StateCorrupted(CertifierError):
    """Kept search state cannot be read; it is discarded and the search starts cold."""

    code = "state_corrupted"
