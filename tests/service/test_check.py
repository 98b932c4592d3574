"""POST /check: a report for everything that certifying would refuse, in a child, and nothing kept."""

from __future__ import annotations

import asyncio

from certifier.documents import ModelCheck
from service.settings import Settings
from tests.building import sum_of_two_inputs
from tests.service.helpers import dense_network, files_below, running, upload_form


def test_a_model_is_checked_and_not_kept(settings: Settings) -> None:
    async def scenario() -> None:
        async with running(settings) as client:
            kept = files_below(settings.data_dir)
            answer = await client.post("/check", **upload_form(dense_network(4, 8, 3), name="m"))
            assert answer.status_code == 200, answer.text
            report = ModelCheck.model_validate_json(answer.content)
            assert report.refusals == []
            assert {one.operator: one.count for one in report.operators} == {"Gemm": 2, "Relu": 1}
            assert files_below(settings.data_dir) == kept
            assert (await client.get("/models")).json()["models"] == []

    asyncio.run(scenario())


def test_the_first_refusal_is_the_one_of_certifying(settings: Settings) -> None:
    async def scenario() -> None:
        async with running(settings) as client:
            for data, options in (
                (dense_network(4, 8, 8, 3, operator="Round"), "{}"),
                (sum_of_two_inputs(), '{"inputs": ["x"]}'),
                (b"no model", "{}"),
            ):
                form = upload_form(data, options=options)
                report = ModelCheck.model_validate_json((await client.post("/check", **form)).content)
                problem = (await client.post("/certify", **form)).json()
                assert (report.refusals[0].code, report.refusals[0].message) == (problem["code"], problem["detail"])
                assert report.refusals[0].node == problem["details"].get("node")
            # All layers of the first model are refused, not only the first.
            form = upload_form(dense_network(4, 8, 8, 3, operator="Round"))
            report = ModelCheck.model_validate_json((await client.post("/check", **form)).content)
            (use,) = (one for one in report.operators if one.operator == "Round")
            assert (use.count, use.supported, use.refused) == (2, False, 1)

    asyncio.run(scenario())


def test_what_is_no_upload_is_a_problem(settings: Settings) -> None:
    async def scenario() -> None:
        async with running(settings) as client:
            for form, status in (
                (upload_form(dense_network(4, 3), options="{"), 400),
                (upload_form(dense_network(4, 3), options='{"unknown": 1}'), 422),
                (upload_form(b""), 422),
            ):
                answer = await client.post("/check", **form)
                assert answer.status_code == status
                assert answer.headers["content-type"] == "application/problem+json"
            raw = {"content-type": "application/octet-stream"}
            answer = await client.post("/check", content=dense_network(4, 3), headers=raw)
            assert answer.status_code == 200 and answer.json()["refusals"] == []

    asyncio.run(scenario())
