"""Several inputs over HTTP: chosen and fixed by the options, predicted by name."""

from __future__ import annotations

import asyncio
import json

import numpy as np

from certifier.documents import Certificate
from service.settings import Settings
from tests.building import sum_of_two_inputs
from tests.service.helpers import running, upload_form

X, Y = np.arange(6.0).reshape(2, 3), np.ones((2, 3))


def test_two_inputs_are_certified_together_and_predicted_by_name(settings: Settings) -> None:
    async def scenario() -> None:
        async with running(settings) as client:
            answer = await client.post("/certify", **upload_form(sum_of_two_inputs(), name="sum"))
            assert answer.status_code == 201, answer.text
            certificate = Certificate.model_validate_json(answer.content)
            assert [one.name for one in certificate.model.inputs] == ["x", "y"]
            assert np.sqrt(2) <= certificate.lipschitz.upper <= np.sqrt(2) * (1 + 1e-8)
            body = {"model": "sum", "inputs": {"y": Y.tolist(), "x": X.tolist()}, "epsilon": 0.25}
            rows = (await client.post("/predict", json=body)).json()["rows"]
            assert [row["logits"] for row in rows] == (X + Y).tolist()
            joint = {**body, "inputs": np.hstack([X, Y]).tolist()}
            assert (await client.post("/predict", json=joint)).json()["rows"] == rows
            pair = {"model": "sum", "x": body["inputs"], "y": {"x": X.tolist(), "y": (Y + 1).tolist()}}
            (first, _) = (await client.post("/compare", json=pair)).json()["rows"]
            assert first["output_difference"] <= first["output_difference_bound"]
            for inputs, field in (
                ({"x": X.tolist()}, "inputs.y"),
                ({"x": X.tolist(), "y": [[1, 2]] * 2}, "inputs.y"),
                ({"x": X.tolist(), "y": Y.tolist(), "w": Y.tolist()}, "inputs.w"),
                ({"x": X.tolist(), "y": [[True] * 3] * 2}, "inputs.y"),
                ({}, "inputs"),
                ("x", "inputs"),
            ):
                refused = await client.post("/predict", json={**body, "inputs": inputs})
                assert refused.status_code == 422 and field in refused.text, refused.text
            mixed = await client.post("/compare", json={**pair, "x": np.hstack([X, Y]).tolist()})
            assert mixed.status_code == 422 and "input name" in mixed.text

    asyncio.run(scenario())


def test_an_input_is_fixed_by_the_options(settings: Settings) -> None:
    async def scenario() -> None:
        async with running(settings) as client:
            options = json.dumps({"inputs": ["x"], "fixed_inputs": {"y": [1, 2, 3]}})
            answer = await client.post("/certify", **upload_form(sum_of_two_inputs(), name="sum", options=options))
            assert answer.status_code == 201, answer.text
            certificate = Certificate.model_validate_json(answer.content)
            assert 1 <= certificate.lipschitz.upper <= 1 + 1e-8
            assert [one.name for one in certificate.model.fixed_inputs] == ["y"]
            for inputs in (X.tolist(), {"x": X.tolist()}):
                predicted = await client.post("/predict", json={"model": "sum", "inputs": inputs})
                assert [row["logits"] for row in predicted.json()["rows"]] == (X + np.array([1, 2, 3])).tolist()
            for options, field in (
                ('{"inputs": ["x"]}', "options.fixed_inputs.y"),
                ('{"fixed_inputs": {"y": [1]}}', "options.fixed_inputs.y"),
                ('{"fixed_inputs": {"w": 1}}', "options.fixed_inputs.w"),
                ('{"fixed_inputs": {"y": "one"}}', "options.fixed_inputs.y"),
            ):
                refused = await client.post("/certify", **upload_form(sum_of_two_inputs(), options=options))
                assert refused.status_code == 422 and field in refused.text, refused.text

    asyncio.run(scenario())
