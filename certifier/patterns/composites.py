"""Functions that a network spells in several terms, bounded as the one vector function that they are.

Rules have already brought every spelling to a few kinds of terms, so that one matcher sees them all.  A match adds
terms beside those of its inner values, which stay: whoever else reads an inner value reads its own term, with its own
bound.  What no output depends on any more is dropped afterwards.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from certifier.graph import Tensor
from certifier.patterns import normalisations, norms, softmaxes, sorts
from certifier.patterns.tracing import Trace
from certifier.terms import Term

CLOSENESS = 2.0**-36
"""How near the terms and the function that replaces them must come, relative to the largest value, in float64."""


def with_composites(terms: Sequence[Term], source: Tensor) -> list[Term]:
    """The same values in the same order, each recognised function as a term of its own; `source` is the input."""
    joined = sorts.joined(terms)
    trace = Trace(joined)
    result: list[Term] = []
    for term in joined:
        found = _match(term, trace)
        result.extend(found if found and _agrees(found, term, trace, source) else [term])
    return result


def _match(term: Term, trace: Trace) -> list[Term] | None:
    return norms.match(term, trace) or softmaxes.match(term, trace) or normalisations.match(term, trace)


def _agrees(found: Sequence[Term], root: Term, trace: Trace, source: Tensor) -> bool:
    """Both compute the same values from the same random sources, small to large."""
    sources = sorted({name for term in found for name in term.sources} - {term.output for term in found})
    spelled = trace.between(sources, root)
    shapes = {name: source.shape if name == source.name else trace.producers[name].shape for name in sources}
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    generator = np.random.default_rng(0)
    for scale in (2.0**-7, 1.0, 8.0):
        drawn = {name: scale * generator.standard_normal((1, size)) for name, size in sizes.items()}
        values = []
        for terms in (spelled, found):
            known = dict(drawn)
            for term in terms:
                if not set(term.sources) <= set(known):
                    return False
                known[term.output] = term.evaluate(*(known[name] for name in term.sources))
            values.append(known[root.output])
        if values[0].shape != values[1].shape:
            return False
        if not np.all(abs(values[0] - values[1]) <= CLOSENESS * (1 + abs(values[0]).max(initial=0.0))):
            return False
    return True
