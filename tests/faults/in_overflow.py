"""Faults in what keeps numbers inside of the engine from overflowing unseen."""

from __future__ import annotations

from tests.faults.fault import PROOF, Fault

OVERFLOW = PROOF + "test_drifts_of_overflow.py"

FAULTS = (
    Fault(
        name="exponentials that nothing is subtracted from overflow nowhere",
        file="certifier/patterns/softmaxes.py",
        old="replace(rounding, largest_input=MODERATE)",
        new="rounding",
        tests=(OVERFLOW,),
    ),
    Fault(
        name="sums overflow nowhere at a point",
        file="certifier/terms/affine.py",
        old="        return np.where(at.holds(summed), bound, np.inf)",
        new="        return bound + 0 * summed",
        tests=(OVERFLOW,),
    ),
    Fault(
        name="a sum is as large as what is left of it",
        file="certifier/terms/affine.py",
        old="self.swelling * magnitudes",
        new="magnitudes",
        tests=(OVERFLOW,),
    ),
    Fault(
        name="activations overflow nowhere inside at a point",
        file="certifier/terms/activation.py",
        old=" & at.holds(INNER * entering)",
        new="",
        tests=(OVERFLOW,),
    ),
    Fault(
        name="products overflow nowhere at a point",
        file="certifier/products.py",
        old="np.where(at.holds(size), ",
        new="np.where(size >= 0, ",
        tests=(OVERFLOW,),
    ),
    Fault(
        name="inputs are as small as any number",
        file="certifier/proof/execution.py",
        old="np.where(precisions[network.input.dtype].holds(abs(x) + input_radius), input_radius, np.inf)",
        new="input_radius",
        tests=(OVERFLOW,),
    ),
    Fault(
        name="an epsilon overflows beside no variance",
        file="certifier/vector_functions/normalising.py",
        old=" and self.epsilon <= LARGEST_EPSILON / at.tiny",
        new="",
        tests=(OVERFLOW,),
    ),
    Fault(
        name="an epsilon near the largest number bounds something at a point",
        file="certifier/vector_functions/normalising.py",
        old="        if not self._fits(at):",
        new="        if False:",
        tests=(OVERFLOW,),
    ),
    Fault(
        name="a normalisation without centring overflows nowhere inside",
        file="certifier/vector_functions/normalising.py",
        old="share < 2.0**-6 and self._fits(at)",
        new="share < 2.0**-6",
        tests=(OVERFLOW,),
    ),
    Fault(
        name="scales in single steps overflow nowhere",
        file="certifier/patterns/normalisations.py",
        old=" | (abs(scale) > GREATEST_SCALE)",
        new="",
        tests=(OVERFLOW,),
    ),
    Fault(
        name="an inverse root enlarges nothing that was flushed",
        file="certifier/patterns/normalisations.py",
        old="max(1.0, steepest * (1 + 2.0**-10))",
        new="1.0",
        tests=(OVERFLOW,),
    ),
    Fault(
        name="a mean of squares may be multiplied by any factor",
        file="certifier/patterns/inverse_roots.py",
        old="LEAST_FACTOR <= factor <= MOST_PER_ENTRY * groups.count",
        new="factor > 0",
        tests=(OVERFLOW,),
    ),
    Fault(
        name="statistics overflow nowhere",
        file="certifier/rules/normalisations.py",
        old="not np.all(2 * derived <= LARGEST[site.dtype]) or ",
        new="",
        tests=(OVERFLOW,),
    ),
    Fault(
        name="a variance is never flushed to zero",
        file="certifier/rules/normalisations.py",
        old=" or np.any(shifted < PRECISIONS[site.dtype].tiny)",
        new="",
        tests=(OVERFLOW,),
    ),
)
