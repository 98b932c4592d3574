"""Models, their versions, and blobs being written."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "models",
        sa.Column("name", sa.String(128), primary_key=True),
        sa.Column("last_version", sa.Integer, nullable=False, comment="Highest version ever given; never falls."),
    )
    op.create_table(
        "versions",
        sa.Column("name", sa.String(128), sa.ForeignKey("models.name"), primary_key=True),
        sa.Column("version", sa.Integer, primary_key=True),
        sa.Column(
            "visible",
            sa.Integer,
            nullable=False,
            comment="1: served; 0: deleted, kept so that its number is not reused.",
        ),
        sa.Column("prefix", sa.String(64), unique=True, comment="Folder of its blobs; null once they are removed."),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("options_digest", sa.String(64), nullable=False),
        sa.Column("checker_revision", sa.Integer, nullable=False),
        sa.Column("bytes", sa.Integer, nullable=False),
        sa.Column("created", sa.String(32), nullable=False, comment="UTC, ISO 8601."),
        sa.Column("summary", sa.JSON, nullable=False),
    )
    op.create_index("ix_versions_upload", "versions", ["name", "sha256", "options_digest"])
    op.create_table(
        "staging",
        sa.Column("prefix", sa.String(64), primary_key=True, comment="Blobs being written; not yet a version."),
        sa.Column("owner", sa.String(64), nullable=False, comment="The server that writes them."),
        sa.Column("started", sa.String(32), nullable=False),
    )


def downgrade() -> None:
    op.drop_table("staging")
    op.drop_index("ix_versions_upload", "versions")
    op.drop_table("versions")
    op.drop_table("models")
