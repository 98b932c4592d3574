"""Predictions: loaded models kept by recent use, computed in a bounded set of threads."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from certifier.documents import Certificate, Comparisons, Predictions
from certifier.prediction import Predictor
from service.artifacts import CERTIFICATE, CONSTANTS, SERVED
from service.bodies import numeric_inputs, parse_fields, parse_json
from service.errors import InvalidRequest, Unavailable
from service.metrics import Metrics
from service.schemas import CompareRequest, PredictRequest
from service.store import Store, StoredVersion

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class _Loaded:
    certificate: Certificate
    predictor: Predictor


class Runtime:
    """Answers predictions; every request reads which version is visible, so that deleted ones are gone at once."""

    def __init__(self, *, store: Store, threads: int, queue: int, cached: int, metrics: Metrics) -> None:
        self._store, self._metrics, self._cached = store, metrics, cached
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="predict")
        self._capacity = threads + queue
        self._taken = 0
        self._models: OrderedDict[str, _Loaded] = OrderedDict()
        self._lock = threading.Lock()
        self._loading: dict[str, threading.Lock] = {}

    def close(self) -> None:
        """Finish what runs and drop the loaded models."""
        self._threads.shutdown(wait=True, cancel_futures=True)
        self._models.clear()

    async def predict(self, body: bytes) -> bytes:
        """The answer to a `PredictRequest` document, both as JSON.

        Raises: MalformedRequest, InvalidRequest, InvalidInput, UnknownModel, Unavailable.
        """
        return await self._in_thread(self._predict, body)

    async def compare(self, body: bytes) -> bytes:
        """The answer to a `CompareRequest` document, both as JSON.

        Raises: MalformedRequest, InvalidRequest, InvalidInput, UnknownModel, Unavailable.
        """
        return await self._in_thread(self._compare, body)

    def forget(self, versions: list[StoredVersion]) -> None:
        """Drop deleted versions from memory."""
        with self._lock:
            for version in versions:
                self._models.pop(version.prefix, None)
            self._metrics.loaded.set(len(self._models))

    async def _in_thread(self, function: Callable[[bytes], Answer], body: bytes) -> Answer:
        if self._taken >= self._capacity:
            raise Unavailable(f"{self._taken} predictions are running or waiting")
        self._taken += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, function, body)
        finally:
            self._taken -= 1

    def _predict(self, body: bytes) -> bytes:
        document = parse_json(body)
        asked = parse_fields(PredictRequest, document.value)
        inputs = numeric_inputs(asked.inputs, field="inputs", has_booleans=document.has_booleans)
        version, loaded = self._load(asked.model, asked.version)
        started = time.perf_counter()
        rows = loaded.predictor.predict(
            inputs,
            epsilon=asked.epsilon,
            preprocessing=asked.preprocessing,
            refine=asked.refine,
            refine_seconds=asked.refine_seconds,
        )
        self._metrics.predicted(len(rows), time.perf_counter() - started)
        answer = Predictions(
            model=version.name,
            version=version.version,
            task=loaded.certificate.task,
            arithmetic=loaded.predictor.arithmetic,
            epsilon=asked.epsilon,
            rows=rows,
        )
        return answer.model_dump_json().encode()

    def _compare(self, body: bytes) -> bytes:
        document = parse_json(body)
        asked = parse_fields(CompareRequest, document.value)
        x = numeric_inputs(asked.x, field="x", has_booleans=document.has_booleans)
        y = numeric_inputs(asked.y, field="y", has_booleans=document.has_booleans)
        if isinstance(x, dict) != isinstance(y, dict):
            raise InvalidRequest([("y", "must be given as x is: both by input name, or both as rows")])
        if not isinstance(x, dict) and not isinstance(y, dict) and x.shape != y.shape:
            raise InvalidRequest([("y", f"has shape {list(y.shape)}, but x has {list(x.shape)}")])
        version, loaded = self._load(asked.model, asked.version)
        answer = Comparisons(
            model=version.name,
            version=version.version,
            arithmetic=loaded.predictor.arithmetic,
            rows=loaded.predictor.compare(x, y),
        )
        return answer.model_dump_json().encode()

    def _load(self, name: str, number: int | None) -> tuple[StoredVersion, _Loaded]:
        version = self._store.resolve(name, number)
        loaded = self._recent(version)
        if loaded is not None:
            return version, loaded
        with self._lock:
            loading = self._loading.setdefault(version.prefix, threading.Lock())
        with loading:  # several requests for a model that is not loaded load it once
            loaded = self._recent(version)
            if loaded is None:
                loaded = _Loaded(
                    certificate := Certificate.model_validate_json(self._store.read(version, CERTIFICATE)),
                    Predictor(
                        certificate=certificate,
                        served_model=self._store.read(version, SERVED),
                        constants=self._store.read(version, CONSTANTS),
                    ),
                )
                self._keep(version, loaded)
        return version, loaded

    def _recent(self, version: StoredVersion) -> _Loaded | None:
        with self._lock:
            loaded = self._models.get(version.prefix)
            if loaded is not None:
                self._models.move_to_end(version.prefix)
            return loaded

    def _keep(self, version: StoredVersion, loaded: _Loaded) -> None:
        with self._lock:
            self._models[version.prefix] = loaded
            self._loading.pop(version.prefix, None)
            while len(self._models) > self._cached:
                self._models.popitem(last=False)
            self._metrics.loaded.set(len(self._models))
