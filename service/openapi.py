"""The OpenAPI document: what FastAPI derives from the routes, plus the schemas of bodies read by hand."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import metadata
from typing import Any

from fastapi import FastAPI
from pydantic.json_schema import models_json_schema

from certifier.documents import CertifyOptions
from service.schemas import NAME_PATTERN, NAME_TEXT, CompareRequest, PredictRequest, Problem

TITLE = "Lipcert"
DESCRIPTION = (
    "Proved global L2 Lipschitz bounds for neural networks, and predictions with certified radii. "
    "Distances are L2 norms in the units of the caller's inputs; upper bounds are rounded up, lower bounds and radii "
    "down. Errors are problem documents (RFC 9457) of media type `application/problem+json`."
)
_REFERENCE = "#/components/schemas/{model}"
_BY_HAND = (Problem, CertifyOptions, PredictRequest, CompareRequest)

NAME_SCHEMA: Mapping[str, Any] = {
    "type": "string",
    "pattern": NAME_PATTERN,
    "description": f"{NAME_TEXT} Unset: from the file's name, else its digest.",
}
VERSION_SCHEMA: Mapping[str, Any] = {
    "type": "integer",
    "minimum": 1,
    "maximum": 2**31 - 1,
    "description": "Unset: the next free one.",
}
OPTIONS_TEXT = "A `CertifyOptions` document as JSON text."

CERTIFY_BODY: Mapping[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "The model's bytes: one field of a form, or the whole body.",
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "additionalProperties": False,
                    "properties": {
                        "file": {"type": "string", "format": "binary", "description": "The ONNX model."},
                        "calibration": {
                            "type": "string",
                            "format": "binary",
                            "description": "A `.npy` file of inputs, rows as in `/predict`: pairs of classes that they "
                            "come near are favoured by the search.",
                        },
                        "name": NAME_SCHEMA,
                        "version": VERSION_SCHEMA,
                        "options": {
                            "type": "string",
                            "contentMediaType": "application/json",
                            "contentSchema": {"$ref": "#/components/schemas/CertifyOptions"},
                            "description": OPTIONS_TEXT,
                            "examples": ['{"method": "auto"}'],
                        },
                    },
                },
                "encoding": {
                    "file": {"contentType": "application/octet-stream"},
                    "calibration": {"contentType": "application/octet-stream"},
                    "options": {"contentType": "text/plain"},
                },
            },
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
        },
    },
    "parameters": [
        {"name": "name", "in": "query", "required": False, "schema": NAME_SCHEMA, "description": "For a raw body."},
        {
            "name": "version",
            "in": "query",
            "required": False,
            "schema": VERSION_SCHEMA,
            "description": "For a raw body.",
        },
        {
            "name": "options",
            "in": "query",
            "required": False,
            "schema": {"type": "string", "contentMediaType": "application/json"},
            "description": f"For a raw body. {OPTIONS_TEXT}",
        },
    ],
}


def json_body(schema: type) -> dict[str, Any]:
    """The request body of a route that parses its own JSON."""
    reference = {"$ref": _REFERENCE.format(model=schema.__name__)}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": reference}}}}


def version() -> str:
    """The installed version of the project."""
    try:
        return metadata.version("lipcert")
    except metadata.PackageNotFoundError:
        return "0+source"


def complete(app: FastAPI) -> None:
    """Add the schemas that FastAPI cannot see to the application's document."""
    derive = app.openapi

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            derived = derive()
            _, extra = models_json_schema([(model, "validation") for model in _BY_HAND], ref_template=_REFERENCE)
            known = derived.setdefault("components", {}).setdefault("schemas", {})
            for name, schema in extra["$defs"].items():
                known.setdefault(name, schema)
            app.openapi_schema = derived
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]  # FastAPI's documented way to extend the document
