"""What the service itself refuses, beside what the library refuses; it knows no HTTP.

ServiceError
├── UnknownModel           no visible model or version of that name
├── UnknownJob             no job of that id is remembered
├── JobAbandoned           the certification was abandoned by a caller
├── NoPortableCertificate  the version has no certificate file that is read today
├── NameConflict           the version exists with other bytes or options, or was deleted
├── BodyTooLarge           more bytes than a limit allows
├── MalformedRequest       the body is not what its content type says
├── UnsupportedMediaType   no reader for the content type
├── InvalidRequest         well-formed fields with values that cannot be used
├── CertificationCrashed   the child process died
└── Unavailable            queue full, or the server is stopping
"""

from __future__ import annotations

from collections.abc import Sequence

from certifier.errors import ResourceLimitExceeded


class ServiceError(Exception):
    """Base of the service's refusals; `code` names its kind for machines."""

    code = "service_error"

    def details(self) -> dict[str, object]:
        """The facts of the refusal as JSON-ready values."""
        return {}


class UnknownModel(ServiceError):
    """No visible model `name`, or no visible `version` of it."""

    code = "unknown_model"

    def __init__(self, name: str, version: int | None = None) -> None:
        self.name, self.version = name, version
        super().__init__(f"no model {name!r}" + (f" with version {version}" if version is not None else ""))

    def details(self) -> dict[str, object]:
        return {"model": self.name, "version": self.version}


class UnknownJob(ServiceError):
    """No job `identifier` is known: there was none, it was abandoned, or it ended too long ago."""

    code = "unknown_job"

    def __init__(self, identifier: str) -> None:
        self.identifier = identifier
        super().__init__(f"no job {identifier!r}; those that have ended are forgotten in time, and at a restart")

    def details(self) -> dict[str, object]:
        return {"job": self.identifier}


class JobAbandoned(ServiceError):
    """The certification was abandoned by a caller who knew its job."""

    code = "job_abandoned"

    def __init__(self, identifier: str) -> None:
        self.identifier = identifier
        super().__init__(f"job {identifier!r} was abandoned; nothing was stored")

    def details(self) -> dict[str, object]:
        return {"job": self.identifier}


class NoPortableCertificate(ServiceError):
    """The version was certified before certificate files were kept, or by a build whose files are not read today.

    Certifying the model again makes one.
    """

    code = "no_portable_certificate"

    def __init__(self, name: str, version: int) -> None:
        self.name, self.version = name, version
        super().__init__(
            f"version {version} of {name!r} has no certificate file that this build reads; certify the model again"
        )

    def details(self) -> dict[str, object]:
        return {"model": self.name, "version": self.version}


class NameConflict(ServiceError):
    """`version` of `name` cannot be given to this upload."""

    code = "name_conflict"

    def __init__(self, name: str, version: int, reason: str) -> None:
        self.name, self.version = name, version
        super().__init__(f"version {version} of {name!r} {reason}")

    def details(self) -> dict[str, object]:
        return {"model": self.name, "version": self.version}


class BodyTooLarge(ServiceError):
    """The body has more than `limit` bytes."""

    code = "body_too_large"

    def __init__(self, limit: int) -> None:
        self.limit = limit
        super().__init__(f"the body has more than {limit} bytes")

    def details(self) -> dict[str, object]:
        return {"limit_bytes": self.limit}


class MalformedRequest(ServiceError):
    """The body cannot be parsed."""

    code = "malformed_request"


class UnsupportedMediaType(ServiceError):
    """The body's content type is none that the route reads."""

    code = "unsupported_media_type"

    def __init__(self, media_type: str, expected: Sequence[str]) -> None:
        self.media_type, self.expected = media_type, list(expected)
        super().__init__(f"content type {media_type!r} is not one of {', '.join(expected)}")

    def details(self) -> dict[str, object]:
        return {"expected": self.expected}


class InvalidRequest(ServiceError):
    """Fields with values that cannot be used: pairs of field and reason."""

    code = "invalid_request"

    def __init__(self, problems: Sequence[tuple[str, str]]) -> None:
        self.problems = list(problems)
        super().__init__("; ".join(f"{field}: {reason}" for field, reason in problems))

    def details(self) -> dict[str, object]:
        return {"errors": [{"field": field, "reason": reason} for field, reason in self.problems]}


class CertificationCrashed(ServiceError):
    """The child process that certified the model died with `exit_code` (negative: a signal)."""

    code = "certification_crashed"

    def __init__(self, exit_code: int | None) -> None:
        self.exit_code = exit_code
        super().__init__("the process that certified the model died; nothing was stored")

    def details(self) -> dict[str, object]:
        return {"exit_code": self.exit_code}


class Unavailable(ServiceError):
    """The request cannot be taken now; another time it can."""

    code = "unavailable"


class ChildLimitReached(ResourceLimitExceeded):
    """The child process was stopped at a limit of the operating system, so the overrun is not known."""

    def __init__(self, resource: str, *, limit: int | float) -> None:
        super().__init__(resource, limit=limit, actual=limit)
        self.args = (f"certification used up its limit of {limit} {resource.replace('_', ' ')}",)

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild_child_limit, (self.resource, self.limit))


def _rebuild_child_limit(resource: str, limit: int | float) -> ChildLimitReached:
    return ChildLimitReached(resource, limit=limit)


class Defect(Exception):
    """The child process raised what it never should: our fault; carries its traceback for the log only."""
