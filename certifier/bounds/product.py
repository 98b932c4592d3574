"""network -> proved constants, by the product of norms over any graph of affine maps and nonlinear terms.

Every value v carries L(v) with ||v(x) - v(y)|| <= L(v) ||x - y||:

    activation       L(h) <= max|slope| L(y)              contraction   L(h) <= K L(y)
    product          L(B(u, v)) <= sup ||B(., v)|| L(u) + sup ||B(u, .)|| L(v)
    chain            L(A s) <= ||A|| L(s)                 sum           L(sum_i A_i s_i) <= sum_i ||A_i|| L(s_i)
    stack            L <= root of the sum of (||A_i|| L(s_i))^2
    expansion        all paths from an anchor added up before the norm is taken, where that can be smaller
    known part       L(v) <= K L(u), K proved otherwise

and the readout carries L_a for every direction a of the outputs: sum over anchors of L(z) ||A_z^T a||.
The smallest of the applicable bounds is kept; each is sound on its own.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from certifier.certificates import Constants
from certifier.flow import Network
from certifier.operators import Sum
from certifier.paths import Chain, Paths
from certifier.products import Bilinear
from certifier.proof.execution import Gain
from certifier.proof.norms import ProvedNorms
from certifier.proof.readout import Readout, direct_readout, scaled_readout, smaller
from certifier.proof.rounding import add_upper, mul_upper, norm_upper, sqrt_upper
from certifier.ranges import needs_range
from certifier.terms import Activation, Affine, Contraction, Term

SQRT2_UPPER = float(sqrt_upper(np.float64(2.0)))


class ProductBound:
    """The product-of-norms bound of one network; `norms` proves and remembers every norm it needs."""

    def __init__(
        self,
        network: Network,
        norms: ProvedNorms,
        *,
        expand_always: bool = False,
        known: Mapping[str, tuple[str, float]] | None = None,
    ) -> None:
        """`expand_always` adds up the paths to every value, at the price of many more norms.

        `known` gives for a value v another, u, and a constant K that is proved: ||v(x) - v(y)|| <= K ||u(x) - u(y)||.
        """
        self.network, self.norms, self.expand_always = network, norms, expand_always
        self.known = known or {}
        self.paths = Paths(network, self.known)
        self._readers: dict[str, list[Term]] = {}
        for term in network.terms:
            for source in set(term.sources):
                self._readers.setdefault(source, []).append(term)
        self._constants: dict[str, float] = {network.input.name: 1.0}
        # In order of evaluation, so that nothing recurses deeper than one term.
        for term in network.terms:
            if not self._is_inner(term):
                self._constants[term.output] = self._bound(term)

    def _is_inner(self, term: Term) -> bool:
        """Whether the term only continues a run of affine maps: the norm of the whole run replaces its own."""
        if not isinstance(term, Affine) or len(term.sources) > 1 or term.output == self.network.output:
            return False
        if term.output in self.known:
            return False
        return all(isinstance(reader, Affine) for reader in self._readers.get(term.output, ()))

    def _bound(self, term: Term) -> float:
        """L of the term's output, rounded up; +inf where it overflows."""
        if term.output in self.known:
            source, constant = self.known[term.output]
            return float(mul_upper(constant, self.lipschitz_upper(source)))
        if isinstance(term, Activation):
            return float(mul_upper(float(np.max(term.steepest)), self._constants[term.sources[0]]))
        if isinstance(term, Contraction):
            return float(mul_upper(term.function.constant_upper, self._constants[term.sources[0]]))
        if isinstance(term, Bilinear):
            assert term.factors is not None
            pairs = zip(term.factors, term.sources, strict=True)
            return self._sum([float(mul_upper(factor, self._constants[source])) for factor, source in pairs])
        assert isinstance(term, Affine)
        if len(term.sources) > 1:
            bounds = [self._through(part) for part in self.paths.parts(term.output)]
            stacked = term.arrangement == "stack"
            bound = float(norm_upper(np.array(bounds), None)) if stacked else self._sum(bounds)
        else:
            bound = self._through(self.paths.chain(term.output))
        expansion = self._useful_expansion(term)
        if expansion is not None:
            bound = min(bound, self._sum([self._through(part) for part in expansion]))
        return bound

    def _through(self, chain: Chain) -> float:
        norm = self.norms.norm_upper(chain.operator, chain.name)
        return float(mul_upper(norm, self._constants[chain.source]))

    @staticmethod
    def _sum(bounds: list[float]) -> float:
        total = np.float64(0.0)
        for bound in bounds:
            total = add_upper(total, bound)
        return float(total)

    def _useful_expansion(self, term: Affine) -> list[Chain] | None:
        """The expansion, if adding paths up can gain anything over the step-wise bound.

        Where several sources meet only to go on into other affine maps, the expansion of those will look through.
        """
        value = term.output
        if self.paths.affine(self.paths.chain(value).source) is None:
            return None
        if value != self.network.output and all(isinstance(each, Affine) for each in self._readers.get(value, ())):
            return None
        expansion = self.paths.expand(value)
        if expansion is None:
            return None
        if self.expand_always:
            return expansion
        merges = any(isinstance(part.operator, Sum) for part in expansion)
        return expansion if merges or len(expansion) == 1 else None

    def lipschitz_upper(self, value: str) -> float:
        """||v(x) - v(y)|| <= result ||x - y|| for the value of this name."""
        known = self._constants.get(value)
        return self._through(self.paths.chain(value)) if known is None else known

    def constants(self) -> Constants:
        """The constants of the outputs: of the whole vector, of every output and of every pair."""
        output = self.network.output
        upper = self._constants[output]
        readout = self._readout(output)
        if readout is None:
            return Constants(upper=upper, outputs=None, pairs=None)
        outputs = np.minimum(readout.outputs, upper)
        # ||f(x) - f(y)|| is at most the root of the sum of the outputs' own bounds squared.
        upper = min(upper, float(norm_upper(outputs, None)))
        pairs = np.minimum(readout.pairs, mul_upper(SQRT2_UPPER, upper)) if readout.pairs is not None else None
        return Constants(upper=upper, outputs=np.minimum(outputs, upper), pairs=pairs)

    def gains(self) -> dict[str, Gain]:
        """Per term, by its output, proved Lipschitz constants with respect to each of its sources.

        A constant that holds on a range only is none of these: rounding may lead an execution out of the range.
        """
        gains: dict[str, Gain] = {}
        for term in self.network.terms:
            if isinstance(term, Activation) and not needs_range(term):
                gains[term.output] = Gain(sources=(float(np.max(term.steepest)),), chain=None)
            elif isinstance(term, Contraction):
                gains[term.output] = Gain(sources=(term.function.constant_upper,), chain=None)
            elif isinstance(term, Affine):
                norms = tuple(self.norms.norm_upper(operator, term.name) for operator in term.operators)
                gains[term.output] = Gain(sources=norms, chain=self._run_norm(term))
        return gains

    def _run_norm(self, term: Affine) -> float | None:
        """The norm of the run of single-source affine terms that `term` ends, where it is the last of several."""
        first, *others = term.sources
        if others or self._is_inner(term) or self.paths.affine(first) is None:
            return None
        # The run that the error analysis follows ends where several sources meet, exactly as this chain does.
        chain = self.paths.chain(term.output)
        return self.norms.norm_upper(chain.operator, chain.name)

    def _direct(self, parts: list[Chain]) -> Readout | None:
        weighted = [(self._constants[part.source], part.operator) for part in parts]
        return direct_readout(weighted, lambda operator: self.norms.norm_upper(operator, "readout"))

    def _readout(self, value: str) -> Readout | None:
        term = self.paths.producers.get(value)
        if value in self.known:
            # Nothing is known of its entries but that they move no more than all of them together.
            return self._direct([self.paths.chain(value)])
        if isinstance(term, Activation):
            inner = self._readout(term.sources[0])
            return None if inner is None else scaled_readout(inner, term.function)
        if isinstance(term, (Contraction, Bilinear)):
            return None
        step = [self.paths.chain(value)]
        options = [step]
        if self.paths.affine(step[0].source) is not None:
            expansion = self.paths.expand(value)
            if expansion is not None:
                options.append(expansion)
        readouts = [readout for parts in options if (readout := self._direct(parts)) is not None]
        if not readouts:
            return None
        best = readouts[0]
        for other in readouts[1:]:
            best = smaller(best, other)
        return best
