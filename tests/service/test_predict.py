"""POST /predict and POST /compare: answers, and every way to be refused."""

from __future__ import annotations

import asyncio
import json
import math
from typing import Any

import httpx
import numpy as np
import pytest

from certifier.documents import Comparisons, Predictions
from service.settings import Settings
from tests.service.helpers import dense_network, running, upload_form

X = np.random.default_rng(1).normal(size=(3, 4))
Y = X + np.random.default_rng(2).normal(size=(3, 4)) / 8


async def certified(client: httpx.AsyncClient, name: str = "m", data: bytes | None = None, **fields: str) -> None:
    answer = await client.post("/certify", **upload_form(data or dense_network(4, 8, 3), name=name, **fields))
    assert answer.status_code == 201, answer.text


def test_radii_are_refined_where_the_request_or_the_model_asks_for_it(settings: Settings) -> None:
    async def scenario() -> None:
        async with running(settings) as client:
            await certified(client, "plain")
            await certified(client, "refined", options=json.dumps({"refine": True, "refine_seconds": 5}))
            answers = {}
            for name, asked in (
                ("plain", {}),
                ("plain", {"refine": True, "refine_seconds": 5}),
                ("refined", {}),
                ("refined", {"refine": False}),
                ("plain", {"refine": True, "refine_seconds": 0}),
            ):
                answer = await client.post("/predict", json={"model": name, "inputs": X.tolist(), **asked})
                assert answer.status_code == 200, answer.text
                answers[name, *asked.values()] = answer.json()["rows"]
            plain, refined, untimely = answers[("plain",)], answers["plain", True, 5], answers["plain", True, 0]
            assert {row["radius_method"] for row in plain} == {"global"}
            assert "local" in {row["radius_method"] for row in refined}
            for before, after, late in zip(plain, refined, untimely, strict=True):
                assert after["radius"] >= before["radius"] == late["radius"]
                assert (after["radius_method"] == "local") == (after["radius"] > before["radius"])
                assert (after["unrefined"] is None) == (after["radius_method"] == "local")
                assert before["unrefined"] is None and "time" in late["unrefined"]
            assert "local" in {row["radius_method"] for row in answers[("refined",)]}
            assert {row["radius_method"] for row in answers["refined", False]} == {"global"}
            for seconds in (-1, 61):
                body = {"model": "plain", "inputs": X.tolist(), "refine": True, "refine_seconds": seconds}
                assert (await client.post("/predict", json=body)).status_code == 422

    asyncio.run(scenario())


def test_rows_are_predicted_with_their_radii(settings: Settings) -> None:
    async def scenario() -> None:
        async with running(settings) as client:
            await certified(client)
            body = {"model": "m", "inputs": X.tolist(), "epsilon": 0.01}
            answer = await client.post("/predict", json=body)
            assert answer.status_code == 200, answer.text
            predictions = Predictions.model_validate_json(answer.content)
            assert (predictions.model, predictions.version, predictions.epsilon) == ("m", 1, 0.01)
            assert predictions.arithmetic.name == "float32"
            assert "float32" in predictions.arithmetic.statement
            assert len(predictions.rows) == 3
            for row in predictions.rows:
                assert row.label == int(np.argmax(row.logits))
                assert row.radius is not None and 0 <= row.radius < math.inf
                assert row.certified == (row.radius > 0.01)
                assert row.output_bounds is not None and len(row.output_bounds.intervals) == 3
            without = Predictions.model_validate_json(
                (await client.post("/predict", json={"model": "m", "inputs": X.tolist()})).content
            )
            assert all(row.certified is None and row.output_bounds is None for row in without.rows)
            assert [row.radius for row in without.rows] == [row.radius for row in predictions.rows]

    asyncio.run(scenario())


def test_a_regressor_has_bounds_and_no_radius(settings: Settings) -> None:
    async def scenario() -> None:
        async with running(settings) as client:
            await certified(client, options='{"task": "regression"}')
            body = {"model": "m", "inputs": X.tolist(), "epsilon": 0.5}
            predictions = Predictions.model_validate_json((await client.post("/predict", json=body)).content)
            for row in predictions.rows:
                assert row.label is row.radius is row.certified is None
                assert row.because and row.output_bounds is not None

    asyncio.run(scenario())


def test_paired_inputs_are_compared(settings: Settings) -> None:
    async def scenario() -> None:
        async with running(settings) as client:
            await certified(client)
            body = {"model": "m", "version": 1, "x": X.tolist(), "y": Y.tolist()}
            answer = await client.post("/compare", json=body)
            assert answer.status_code == 200, answer.text
            comparisons = Comparisons.model_validate_json(answer.content)
            assert len(comparisons.rows) == 3
            for row, x, y in zip(comparisons.rows, X, Y, strict=True):
                assert row.input_difference >= np.linalg.norm(x - y) * (1 - 1e-15)
                assert row.output_difference <= row.output_difference_bound
                assert len(row.outputs) == 3

    asyncio.run(scenario())


def test_preprocessing_changes_the_units(settings: Settings) -> None:
    async def scenario() -> None:
        async with running(settings) as client:
            await certified(client)
            plain = await client.post("/predict", json={"model": "m", "inputs": X.tolist()})
            scaled = await client.post(
                "/predict",
                json={"model": "m", "inputs": (4 * X).tolist(), "preprocessing": {"scale": 0.25}},
            )
            for small, large in zip(plain.json()["rows"], scaled.json()["rows"], strict=True):
                assert large["label"] == small["label"]
                assert large["radius"] == pytest.approx(4 * small["radius"], rel=1e-9)

    asyncio.run(scenario())


def test_the_newest_version_answers_and_deleted_ones_are_gone_at_once(settings: Settings) -> None:
    async def scenario() -> None:
        async with running(settings) as client:
            await certified(client)
            await certified(client, data=dense_network(4, 8, 3, seed=5))
            body = {"model": "m", "inputs": X.tolist()}
            assert (await client.post("/predict", json=body)).json()["version"] == 2
            pinned = await client.post("/predict", json=body | {"version": 1})
            assert pinned.json()["version"] == 1
            await client.delete("/models/m/versions/2")
            again = await client.post("/predict", json=body)
            assert (again.json()["version"], again.content) == (1, pinned.content)
            assert (await client.post("/predict", json=body | {"version": 2})).status_code == 404
            await client.delete("/models/m")
            assert (await client.post("/predict", json=body)).json()["code"] == "unknown_model"

    asyncio.run(scenario())


def test_more_models_than_are_kept_loaded(settings: Settings) -> None:
    async def scenario() -> None:
        async with running(settings.model_copy(update={"cached_models": 1})) as client:
            for index in range(3):
                await certified(client, name=f"m{index}", data=dense_network(4, 8, 3, seed=index))
            body = {"inputs": X.tolist()}
            first = [(await client.post("/predict", json=body | {"model": f"m{index}"})).json() for index in range(3)]
            second = await asyncio.gather(
                *(client.post("/predict", json=body | {"model": f"m{index % 3}"}) for index in range(12))
            )
            assert [answer.json() for answer in second] == [first[index % 3] for index in range(12)]
            assert "lipcert_loaded_models 1.0" in (await client.get("/metrics")).text

    asyncio.run(scenario())


def body(**changes: Any) -> dict[str, Any]:
    return {"content": json.dumps({"model": "m", "inputs": X.tolist()} | changes)}


ROW = [0.0, 1.0, 2.0, 3.0]
REFUSED: list[tuple[str, dict[str, Any], int, str]] = [
    ("no JSON", {"content": b"{"}, 400, "malformed_request"),
    ("nothing", {"content": b""}, 400, "malformed_request"),
    ("not UTF-8", {"content": b'{"model": "\xff"}'}, 400, "malformed_request"),
    ("a tower of brackets", {"content": b"[" * 30_000}, 400, "malformed_request"),
    ("a list", {"content": b"[]"}, 422, "invalid_request"),
    ("no model", {"content": json.dumps({"inputs": [ROW]})}, 422, "invalid_request"),
    ("no inputs", {"content": b'{"model": "m"}'}, 422, "invalid_request"),
    ("unknown field", body(radius=1), 422, "invalid_request"),
    ("unknown model", body(model="nobody"), 404, "unknown_model"),
    ("unknown version", body(version=9), 404, "unknown_model"),
    ("version 0", body(version=0), 422, "invalid_request"),
    ("path as a model", body(model="../m"), 422, "invalid_request"),
    ("NaN", body(inputs=[[0.0, 1.0, 2.0, math.nan]]), 422, "invalid_request"),
    ("infinity", body(inputs=[[0.0, 1.0, 2.0, math.inf]]), 422, "invalid_request"),
    ("overflowing literal", {"content": b'{"model": "m", "inputs": [[1e999, 0, 0, 0]]}'}, 422, "invalid_request"),
    ("overflowing integer", body(inputs=[[10**400, 0, 0, 0]]), 422, "invalid_request"),
    ("ragged", body(inputs=[ROW, ROW[:3]]), 422, "invalid_request"),
    ("ragged in depth", body(inputs=[ROW, 1.0]), 422, "invalid_request"),
    ("text", body(inputs=[["1", "2", "3", "4"]]), 422, "invalid_request"),
    ("one text", body(inputs=[[1.0, 2.0, 3.0, "4"]]), 422, "invalid_request"),
    ("null", body(inputs=[[1.0, 2.0, 3.0, None]]), 422, "invalid_request"),
    ("boolean", body(inputs=[[1.0, 2.0, 3.0, True]]), 422, "invalid_request"),
    ("unknown name", body(inputs={"w": [ROW]}), 422, "invalid_input"),
    ("nested object", body(inputs={"x": {"x": ROW}}), 422, "invalid_request"),
    ("objects", body(inputs=[{"x": ROW}]), 422, "invalid_request"),
    ("number", body(inputs=1.0), 422, "invalid_request"),
    ("empty batch", body(inputs=[]), 422, "invalid_request"),
    ("deeper than arrays go", body(inputs=json.loads("[" * 80 + "1" + "]" * 80)), 422, "invalid_request"),
    ("wrong width", body(inputs=[[*ROW, 4.0]]), 422, "invalid_input"),
    ("row without a batch", body(inputs=ROW), 422, "invalid_input"),
    ("empty rows", body(inputs=[[]]), 422, "invalid_input"),
    ("negative epsilon", body(epsilon=-0.1), 422, "invalid_request"),
    ("NaN as epsilon", body(epsilon=math.nan), 422, "invalid_request"),
    ("text as epsilon", body(epsilon="much"), 422, "invalid_request"),
    ("negative std", body(preprocessing={"std": [-1.0]}), 422, "invalid_request"),
    ("body over the limit", body(inputs=[ROW] * 10_000), 413, "body_too_large"),
]  # fmt: skip


@pytest.mark.parametrize("route", ["/predict", "/compare"])
def test_refusals(settings: Settings, route: str) -> None:
    def asked(request: dict[str, Any]) -> dict[str, Any] | None:
        """The same request for the other route, where it means anything there."""
        if route == "/predict":
            return request
        try:
            value = json.loads(request["content"])
        except (ValueError, RecursionError):
            return request
        if not isinstance(value, dict) or "epsilon" in value or "preprocessing" in value:
            return None
        if "inputs" in value:
            value["x"] = value["y"] = value.pop("inputs")
        return {"content": json.dumps(value)}

    async def scenario() -> None:
        async with running(settings) as client:
            await certified(client)
            for title, request, status, code in REFUSED:
                translated = asked(request)
                if translated is None:
                    continue
                answer = await client.post(route, **translated)
                seen = (answer.status_code, answer.json().get("code"))
                assert seen == (status, code), f"{title}: {answer.text}"
                assert answer.headers["content-type"] == "application/problem+json"
                assert "Traceback" not in answer.text
            shapes = {"model": "m", "x": [ROW], "y": [ROW, ROW]}
            answer = await client.post("/compare", json=shapes)
            assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
            fine = await client.post("/predict", json={"model": "m", "inputs": X.tolist()})
            assert fine.status_code == 200

    asyncio.run(scenario())


def test_a_full_queue_is_refused(settings: Settings) -> None:
    async def scenario() -> None:
        async with running(settings.model_copy(update={"predict_threads": 1, "predict_queue": 0})) as client:
            await certified(client)
            request = {"model": "m", "inputs": X.tolist()}
            answers = await asyncio.gather(*(client.post("/predict", json=request) for _ in range(8)))
            statuses = {answer.status_code for answer in answers}
            assert statuses == {200, 503}
            refused = next(answer for answer in answers if answer.status_code == 503)
            assert refused.json()["code"] == "unavailable"
            assert int(refused.headers["retry-after"]) > 0

    asyncio.run(scenario())
