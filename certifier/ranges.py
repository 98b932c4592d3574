"""Terms whose constants depend on where their inputs lie: products of live values and functions of unbounded slope.

`resolve` walks the network from a box of inputs, encloses what every value can reach, and gives each such term its
constants; what stays unbounded is refused by name, with what would help.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from certifier.box import Box
from certifier.errors import UnsupportedNode
from certifier.flow import Network
from certifier.products import Bilinear, MatrixForm
from certifier.proof.reach import NormOf, Reach, factors_of, reach_of
from certifier.runs import Runs
from certifier.steep import Steep
from certifier.terms import Activation, Term

PRODUCT = "the product of two values that both depend on the input has no Lipschitz constant unless both are bounded"
ATTENTION = (
    "the product of two matrices that both depend on the input, as in dot-product attention, has no Lipschitz constant "
    "unless both are bounded (Kim et al. 2021)"
)
DECLARE_A_BOX = "declare the inputs that occur as options.input_box"
NARROW_THE_BOX = "narrow options.input_box"


@dataclass(frozen=True, kw_only=True, eq=False)
class Resolution:
    """The network with every constant that ranges could give, and the refusals where they could not."""

    network: Network
    refusals: tuple[UnsupportedNode, ...]


def needs_range(term: Term) -> bool:
    """Whether the term has a constant only on bounded inputs."""
    return isinstance(term, Bilinear) or (isinstance(term, Activation) and isinstance(term.function, Steep))


def with_ranges(network: Network, box: Box, norm_of: NormOf) -> Network:
    """The network in which every term has its constants over the box.

    Raises: UnsupportedNode for the first term that has none, NotProved.
    """
    resolution = resolve(network, box, norm_of)
    if resolution.refusals:
        raise resolution.refusals[0]
    return resolution.network


def resolve(network: Network, box: Box, norm_of: NormOf) -> Resolution:
    """The same, with all refusals collected; `norm_of` gives proved upper bounds of spectral norms."""
    wanted = _read_by_ranges(network)
    if not wanted:
        return Resolution(network=network, refusals=())
    reaches = {network.input.name: Reach.box(box.lower, box.upper)}
    runs = Runs(network, norm_of)
    terms: list[Term] = []
    refusals: list[UnsupportedNode] = []
    for position, term in enumerate(network.terms):
        if term.output in wanted or needs_range(term):
            sources = [reaches[source] for source in term.sources]
            resolved = _resolved(term, sources, box)
            if isinstance(resolved, UnsupportedNode):
                refusals.append(resolved)
                size = int(np.prod(term.shape))
                reaches[term.output] = Reach.box(np.full(size, -np.inf), np.full(size, np.inf))
            else:
                term = resolved
                if term.output in wanted:
                    reaches[term.output] = runs.tightened(term, sources, reach_of(term, sources, norm_of))
        terms.append(term)
        for source in term.sources:
            if network.last_reader[source] == position:
                reaches.pop(source, None)
    return Resolution(network=replace(network, terms=tuple(terms)), refusals=tuple(refusals))


def _read_by_ranges(network: Network) -> set[str]:
    """The values whose reach is needed: those that terms without a constant of their own depend on."""
    wanted: set[str] = set()
    for term in reversed(network.terms):
        if needs_range(term) or term.output in wanted:
            wanted.update(term.sources)
    return wanted


def _resolved(term: Term, sources: list[Reach], box: Box) -> Term | UnsupportedNode:
    if isinstance(term, Bilinear):
        factors = factors_of(term, sources[0], sources[1])
        if all(np.isfinite(factors)):
            return replace(term, factors=factors)
        unbounded = " and ".join(
            repr(name)
            for name, factor in zip(dict.fromkeys(reversed(term.sources)), factors, strict=False)
            if not np.isfinite(factor)
        )
        reason = ATTENTION if isinstance(term.form, MatrixForm) else PRODUCT
        return _refusal(term, f"{reason}, and no bound is known for {unbounded}", box)
    if isinstance(term, Activation) and isinstance(term.function, Steep):
        reach, function = sources[0], term.function.inside(sources[0].lower, sources[0].upper)
        finite = np.isfinite(function.steepest)
        if finite.all():
            return replace(term, function=function)
        worst = int(np.argmin(finite))
        return _refusal(
            term,
            f"{term.operator} has a bounded slope only on {function.smooth_on}, and its input {term.sources[0]!r} "
            f"ranges over [{reach.lower[worst]:.4g}, {reach.upper[worst]:.4g}]",
            box,
        )
    return term


def _refusal(term: Term, reason: str, box: Box) -> UnsupportedNode:
    if box.is_everything:
        return UnsupportedNode(term.name, term.operator, f"{reason} over all inputs", remedy=DECLARE_A_BOX)
    inside = f"{reason} inside of the declared input box"
    return UnsupportedNode(term.name, term.operator, inside, remedy=NARROW_THE_BOX)
