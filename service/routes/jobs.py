"""Certifications that run: watch them, call their search off, abandon them."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path

from service.errors import InvalidRequest, UnknownJob
from service.problems import responses
from service.schemas import Job, JobList
from service.wiring import Wired

router = APIRouter(prefix="/jobs", tags=["models"])
JobId = Annotated[str, Path(pattern="^[0-9a-f]{32}$", description="The job's id.", examples=["0" * 32])]


@router.get("", responses=responses())
async def list_jobs(parts: Wired) -> JobList:
    """The certifications that run, wait, or ended lately, newest first."""
    return JobList(jobs=[job.described() for job in reversed(list(parts.certifying.jobs))])


@router.get("/{job}", responses=responses(UnknownJob, InvalidRequest))
async def read_job(parts: Wired, job: JobId) -> Job:
    """Where a certification stands: its stage, method and share, and the best bound that is proved by now."""
    return parts.certifying.jobs.get(job).described()


@router.post("/{job}/cancel", responses=responses(UnknownJob, InvalidRequest))
async def cancel_search(parts: Wired, job: JobId) -> Job:
    """End a certification's search: what is proved by then is certified, and the certificate's notes say so.

    Of one that has ended, nothing changes.
    """
    found = parts.certifying.jobs.get(job)
    found.call_off()
    return found.described()


@router.delete("/{job}", responses=responses(UnknownJob, InvalidRequest))
async def abandon_job(parts: Wired, job: JobId) -> Job:
    """Abandon a certification: its process is stopped, nothing is stored, and the job is forgotten.

    One that has ended is only forgotten; its certificate stays.
    """
    return (await parts.certifying.abandon(job)).described()
