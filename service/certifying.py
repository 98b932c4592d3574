"""From a received file to a stored certificate: answered from the store, joined to a running job, or certified.

A check takes the same way into a child, and leaves nothing.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from pathlib import Path

import structlog

from certifier.documents import Certificate, CertifyOptions, ModelCheck
from certifier.errors import CertifierError
from certifier.limits import Limits
from certifier.search.state import Seal
from service.artifacts import CERTIFICATE, CHECK, STATE
from service.child import CertifyJob, CheckJob, certify_folder, check_folder
from service.children import Children
from service.datadir import DataDirectory
from service.errors import JobAbandoned, ServiceError, Unavailable, UnknownModel
from service.jobs import Job, Jobs, Outcome
from service.metrics import Metrics
from service.store import Store, Upload


class Certifying:
    """Certifies uploads, each of them once."""

    def __init__(
        self, *, store: Store, children: Children, folder: DataDirectory, seal: Seal, limits: Limits, metrics: Metrics
    ) -> None:
        self._store, self._children, self._folder = store, children, folder
        self._seal, self._limits, self._metrics = seal, limits, metrics
        self.jobs = Jobs()
        self.draining = False

    async def certify(self, upload: Upload, options: CertifyOptions, folder: Path) -> tuple[bytes, bool]:
        """The certificate of the upload in `folder` as JSON, and whether it is new.

        Takes `folder` over and removes it.
        Raises: CertifierError, NameConflict, CertificationCrashed, Unavailable, JobAbandoned, Defect.
        """
        begun, is_new = await self.begin(upload, options, folder)
        if isinstance(begun, bytes):
            return begun, False
        # Shielded: a client that hangs up does not waste what was begun.
        outcome = await asyncio.shield(begun.task)
        return outcome.document, is_new

    async def begin(self, upload: Upload, options: CertifyOptions, folder: Path) -> tuple[Job | bytes, bool]:
        """The job that certifies the upload in `folder`, and whether it is new; or the stored certificate as JSON.

        The same upload under the same name is answered from the store, or joins the job that is certifying it.
        Takes `folder` over and removes it.
        Raises: NameConflict.
        """
        running = self.jobs.running(upload)
        if running is None:
            try:
                stored = await asyncio.to_thread(self._stored, upload)
            except BaseException:
                await asyncio.to_thread(self._folder.discard, folder)
                raise
            running = self.jobs.running(upload)
            if stored is not None:
                await asyncio.to_thread(self._folder.discard, folder)
                self._metrics.certified("stored")
                return stored, False
        if running is not None:
            await asyncio.to_thread(self._folder.discard, folder)
            return running, False
        job = Job(upload)
        job.run(self._certify_new(job, options, folder))
        self.jobs.add(job)
        return job, True

    async def abandon(self, identifier: str) -> Job:
        """End a job without an outcome unless it has one, and forget it.

        Raises: UnknownJob.
        """
        job = self.jobs.get(identifier)
        await job.abandon()
        self.jobs.forget(job)
        return job

    def call_off_searches(self) -> None:
        """Let every job that runs or waits come to an end with what it has proved."""
        for job in self.jobs:
            job.call_off()

    async def check(self, options: CertifyOptions, folder: Path) -> bytes:
        """What certifying the upload in `folder` would refuse, as JSON; nothing is kept.

        Takes `folder` over and removes it.
        Raises: ResourceLimitExceeded, CertificationCrashed, Unavailable, Defect; refusals of the model are the answer.
        """
        try:
            if self.draining:
                raise Unavailable("the server is stopping")
            job = CheckJob(folder=folder, options=options, limits=self._limits)
            await self._children.run(check_folder, job, seconds=self._limits.seconds)
            return await asyncio.to_thread(self._checked, folder)
        finally:
            await asyncio.to_thread(self._folder.discard, folder)

    async def close(self) -> None:
        """Stop the running jobs; what they have not finished leaves no trace."""
        self.draining = True
        tasks = [job.task for job in self.jobs]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _certify_new(self, job: Job, options: CertifyOptions, folder: Path) -> Outcome:
        upload = job.upload
        log = structlog.get_logger("service").bind(
            job=job.id, model=upload.name, sha256=upload.sha256, bytes=upload.bytes
        )
        try:
            if self.draining:
                raise Unavailable("the server is stopping")
            number = await asyncio.to_thread(self._prepare, upload, folder)
            asked = CertifyJob(
                folder=folder,
                name=upload.name,
                version=number,
                options=options,
                limits=self._limits,
                seal=self._seal,
            )
            await self._children.run(certify_folder, asked, seconds=self._limits.seconds, wire=job.wire)
            job.is_publishing = True
            outcome = await asyncio.to_thread(self._publish, job, folder)
        except (CertifierError, ServiceError) as error:
            self._metrics.certified(error.code)
            log.info("refused", code=error.code)
            raise
        except asyncio.CancelledError:
            if not job.is_abandoned:
                raise
            self._metrics.certified(JobAbandoned.code)
            log.info("abandoned")
            raise JobAbandoned(job.id) from None
        finally:
            await asyncio.to_thread(self._folder.discard, folder)
        self._metrics.certified("certified")
        log.info("certified", version=outcome.version.version)
        return outcome

    def _checked(self, folder: Path) -> bytes:
        return ModelCheck.model_validate_json((folder / CHECK).read_bytes()).model_dump_json().encode()

    def _stored(self, upload: Upload) -> bytes | None:
        version = self._store.find(upload)
        return None if version is None else self._store.read(version, CERTIFICATE)

    def _prepare(self, upload: Upload, folder: Path) -> int:
        """Lay the newest version's search state beside the upload; the number the new version will probably get."""
        try:
            newest = self._store.resolve(upload.name, None)
            (folder / STATE).write_bytes(self._store.read(newest, STATE))
        except UnknownModel:
            return upload.version or 1
        return upload.version or newest.version + 1

    def _publish(self, job: Job, folder: Path) -> Outcome:
        certificate = Certificate.model_validate_json((folder / CERTIFICATE).read_bytes())
        # Another search for the same upload, in more time, may find smaller constants.
        is_final = not job.wire.is_called_off
        version, document = self._store.publish(job.upload, certificate, folder, is_final=is_final)
        return Outcome(version=version, document=document)


def options_digest(options: CertifyOptions) -> str:
    """Digest of the options, the same for every spelling of them."""
    canonical = json.dumps(options.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()
