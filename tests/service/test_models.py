"""GET and DELETE of models, the operators, and the metrics."""

from __future__ import annotations

import asyncio

from certifier.documents import Certificate
from service.schemas import ModelSummary
from service.settings import Settings
from tests.service.helpers import dense_network, files_below, running, upload_form


def test_models_are_listed_read_and_deleted(settings: Settings) -> None:
    async def scenario() -> None:
        async with running(settings) as client:
            for name in ("c", "a", "b"):
                await client.post("/certify", **upload_form(dense_network(4, 8, 3), name=name))
            await client.post("/certify", **upload_form(dense_network(4, 8, 3, seed=1), name="a"))
            assert (await client.get("/models")).json() == {"models": ["a", "b", "c"], "next": None}
            page = (await client.get("/models", params={"limit": 2})).json()
            assert page == {"models": ["a", "b"], "next": "/models?limit=2&after=b"}
            assert (await client.get(page["next"])).json() == {"models": ["c"], "next": None}

            model = ModelSummary.model_validate_json((await client.get("/models/a")).content)
            assert [version.version for version in model.versions] == [2, 1]
            for version in model.versions:
                full = Certificate.model_validate_json((await client.get(version.link)).content)
                assert (full.model.name, full.model.version) == ("a", version.version)
                assert full.model.sha256 == version.sha256
                assert full.lipschitz == version.lipschitz
                pairs = (await client.get(f"{version.link}/pairs")).json()
                assert pairs == {"name": "a", "version": version.version, "pairs": full.pairs}

            assert (await client.delete("/models/a/versions/2")).json() == {"name": "a", "versions": [2]}
            assert (await client.delete("/models/b")).json() == {"name": "b", "versions": [1]}
            assert (await client.get("/models")).json()["models"] == ["a", "c"]
            assert (await client.delete("/models/a")).json() == {"name": "a", "versions": [1]}
            await client.delete("/models/c")
        assert files_below(settings.data_dir / "blobs") == []

    asyncio.run(scenario())


def test_pairs_of_many_classes_are_served_by_link(settings: Settings) -> None:
    async def scenario() -> None:
        async with running(settings) as client:
            answer = await client.post("/certify", **upload_form(dense_network(4, 8, 70), name="wide"))
            certificate = Certificate.model_validate_json(answer.content)
            assert certificate.pairs is None
            assert certificate.pairs_link == "/models/wide/versions/1/pairs"
            pairs = (await client.get(certificate.pairs_link)).json()["pairs"]
            assert len(pairs) == 70 and all(len(row) == 70 for row in pairs)
            assert all(pairs[t][t] == 0 for t in range(70))
            assert all(pairs[t][j] == pairs[j][t] > 0 for t in range(70) for j in range(t))

    asyncio.run(scenario())


def test_refusals(settings: Settings) -> None:
    async def scenario() -> None:
        async with running(settings) as client:
            regression = upload_form(dense_network(4, 8, 3), name="r", options='{"task": "regression"}')
            assert (await client.post("/certify", **regression)).status_code == 201
            for method, path, status, code in (
                ("GET", "/models/nobody", 404, "unknown_model"),
                ("GET", "/models/r/versions/2", 404, "unknown_model"),
                ("GET", "/models/nobody/versions/1", 404, "unknown_model"),
                ("GET", "/models/nobody/versions/1/pairs", 404, "unknown_model"),
                ("GET", "/models/r/versions/1/pairs", 422, "invalid_request"),
                ("GET", "/models/r/versions/0", 422, "invalid_request"),
                ("GET", "/models/r/versions/one", 422, "invalid_request"),
                ("GET", f"/models/r/versions/{2**63}", 422, "invalid_request"),
                ("GET", "/models/%2e%2e", 422, "invalid_request"),
                ("GET", "/models?limit=0", 422, "invalid_request"),
                ("DELETE", "/models/nobody", 404, "unknown_model"),
                ("DELETE", "/models/r/versions/2", 404, "unknown_model"),
                ("DELETE", "/models/r/versions/0", 422, "invalid_request"),
                ("GET", "/nowhere", 404, "not_found"),
                ("PUT", "/models", 405, "method_not_allowed"),
                ("GET", "/predict", 405, "method_not_allowed"),
            ):
                answer = await client.request(method, path)
                assert (answer.status_code, answer.json()["code"]) == (status, code), f"{method} {path}: {answer.text}"
                assert answer.headers["content-type"] == "application/problem+json"

    asyncio.run(scenario())


def test_operators_come_from_the_registry(settings: Settings) -> None:
    from certifier import operators_table

    async def scenario() -> None:
        async with running(settings) as client:
            served = (await client.get("/operators")).json()["operators"]
            assert served == [operator.model_dump() for operator in operators_table()]
            assert any(operator["operator"] == "Relu" and operator["supported"] for operator in served)

    asyncio.run(scenario())


def test_metrics_count_by_route_and_not_by_name(settings: Settings) -> None:
    async def scenario() -> None:
        async with running(settings) as client:
            await client.post("/certify", **upload_form(dense_network(4, 8, 3), name="secret-name"))
            await client.post("/certify", **upload_form(b"no model", name="x"))
            await client.get("/models/secret-name")
            await client.get("/secret-path")
            text = (await client.get("/metrics")).text
            assert 'lipcert_requests_total{method="GET",route="/models/{name}",status="200"} 1.0' in text
            assert 'lipcert_requests_total{method="any",route="unrouted",status="404"} 1.0' in text
            assert 'lipcert_certifications_total{outcome="certified"} 1.0' in text
            assert 'lipcert_certifications_total{outcome="unknown_format"} 1.0' in text
            assert "secret" not in text

    asyncio.run(scenario())
