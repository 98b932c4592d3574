"""Every setting of the service, read from the environment (prefix `LIPCERT_`); none is read anywhere else."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from certifier.limits import Limits

SEAL_KEY_BYTES = 32
Count = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Settings(BaseSettings):
    """How one server runs; frozen, passed down explicitly."""

    model_config = SettingsConfigDict(env_prefix="LIPCERT_", frozen=True, extra="ignore")

    data_dir: Path = Field(
        default=Path("data"),
        description="Folder of the database, the stored models, half-received uploads and the seal key. "
        "One server at a time may use it.",
    )
    database_url: str | None = Field(
        default=None,
        description="SQLAlchemy URL of the metadata; unset: SQLite in `data_dir`.",
    )
    storage_url: str | None = Field(
        default=None,
        description="Where models and certificates are kept: `file:///path`, `s3://bucket/path`, `gs://…`, `az://…`; "
        "unset: `blobs` in `data_dir`. Credentials come from the storage's usual environment variables.",
    )
    seal_key: SecretStr | None = Field(
        default=None,
        description="Secret under which proved bounds are kept for reuse, as 64 hexadecimal digits; "
        "unset: made at first start and kept in `data_dir/seal.key` (mode 0600).",
    )
    signing_key: Path | None = Field(
        default=None,
        description="PEM file of the Ed25519 private key that signs certificates; "
        "unset: made at first start and kept in `data_dir/signing.key` (mode 0600).",
    )
    host: str = Field(default="127.0.0.1", description="Address to listen on.")
    port: int = Field(default=8080, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    max_upload_bytes: Count = Field(default=Limits.model_bytes, description="Largest model file, in bytes.")
    max_request_bytes: Count = Field(
        default=64 * 2**20,
        description="Largest body of `/predict` and `/compare`, and largest `calibration` file, in bytes.",
    )
    workers: Count = Field(default=1, description="Certifications that run at the same time, each in a child process.")
    certify_queue: int = Field(default=16, ge=0, description="Certifications that may wait; one more is answered 503.")
    certify_seconds: Seconds = Field(default=900.0, description="Wall-clock seconds that one certification may take.")
    child_memory_bytes: int = Field(
        default=8 * 2**30, ge=2**28, description="Address space of one certification, in bytes."
    )
    child_cpu_seconds: Count = Field(default=3600, description="Processor seconds that one certification may take.")
    predict_threads: Count = Field(default=2, description="Threads that answer `/predict` and `/compare`.")
    predict_queue: int = Field(default=256, ge=0, description="Predictions that may wait; one more is answered 503.")
    cached_models: Count = Field(default=8, description="Models kept loaded; the least recently used is dropped.")
    drain_seconds: float = Field(
        default=5.0,
        ge=0,
        allow_inf_nan=False,
        description="Seconds between SIGTERM, when `/health/ready` turns 503, and the moment new connections are "
        "refused. SIGINT skips the wait.",
    )
    shutdown_seconds: Count = Field(
        default=30, description="Seconds that requests in flight get to finish after the listening socket closed."
    )
    log_level: str = Field(
        default="info", pattern="^(debug|info|warning|error)$", description="`debug`, `info`, `warning` or `error`."
    )

    @field_validator("seal_key")
    @classmethod
    def _seal_key_is_hexadecimal(cls, key: SecretStr | None) -> SecretStr | None:
        if key is not None:
            try:
                length = len(bytes.fromhex(key.get_secret_value()))
            except ValueError:
                length = 0
            if length != SEAL_KEY_BYTES:
                raise ValueError(f"must be {2 * SEAL_KEY_BYTES} hexadecimal digits")
        return key

    @property
    def database(self) -> str:
        """The SQLAlchemy URL in use."""
        return self.database_url or f"sqlite:///{self.data_dir.resolve() / 'lipcert.sqlite'}"

    @property
    def storage(self) -> str:
        """The storage URL in use."""
        return self.storage_url or (self.data_dir.resolve() / "blobs").as_uri()


def settings_table() -> str:
    """The settings as a Markdown table: what `docs/settings.md` shows."""
    lines = ["| variable | default | meaning |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        default = "unset" if field.default is None else f"`{field.default}`"
        lines.append(f"| `LIPCERT_{name.upper()}` | {default} | {field.description} |")
    return "\n".join(lines) + "\n"
