"""The table of supported operators, from the registry of rules."""

from __future__ import annotations

from fastapi import APIRouter

from certifier import operators_table
from service.problems import responses
from service.schemas import Operators

router = APIRouter(tags=["models"])


@router.get("/operators", responses=responses())
async def operators() -> Operators:
    """The operators with a rule, and those refused by name."""
    return Operators(operators=operators_table())
