"""Faults in what a margin pays for the rounding of the execution that serves."""

from __future__ import annotations

from tests.faults.fault import PROOF, Fault

DRIFTS = PROOF + "test_drifts.py"
FORMS = PROOF + "test_drift_forms.py"
CHANGES = "tests/certifier/test_changes.py"
ARITHMETIC = "tests/certifier/test_arithmetic.py"

FAULTS: tuple[Fault, ...] = (
    Fault(
        name="rounding inside of a run of affine maps is forgotten",
        file="certifier/proof/following.py",
        old="drift=sum_of(times(stretch, source.entered), gathered),",
        new="drift=times(stretch, source.entered),",
        tests=(DRIFTS,),
    ),
    Fault(
        name="what a term sums up at the input itself is free inside of the network",
        file="certifier/proof/following.py",
        old="reached[self._summed[term.output]] = sum_per_rounding(term)",
        new="reached[self._summed[term.output]] = 0.0",
        tests=(DRIFTS,),
    ),
    Fault(
        name="what the last term sums up at the input itself is free",
        file="certifier/proof/drifts.py",
        old="entries = unit * measures.entries[part.term]",
        new="entries = 0.0 * measures.entries[part.term]",
        tests=(DRIFTS,),
    ),
    Fault(
        name="what rounds when a form is evaluated is free",
        file="certifier/proof/drifts.py",
        old="np.ascontiguousarray(mul_upper(self.table[1:-1], SLACK))",
        new="np.ascontiguousarray(self.table[1:-1])",
        tests=(FORMS,),
    ),
    Fault(
        name="what the last term sums up is multiplied without room for rounding",
        file="certifier/proof/drifts.py",
        old="[float(mul_upper(part.unit, SLACK)) for part in self.summed]",
        new="[part.unit * (1 - 2.0**-52) for part in self.summed]",
        tests=(FORMS,),
    ),
    Fault(
        name="products with a distance round for free",
        file="certifier/proof/drifts.py",
        old="np.asarray(mul_upper(self.table[-1, -2 * count - 1 : -count], SLACK))",
        new="self.table[-1, -2 * count - 1 : -count]",
        tests=(FORMS,),
    ),
    Fault(
        name="intervals of outputs leave out the drift",
        file="certifier/changes.py",
        old="reach + drift[:, 1:]",
        new="reach",
        tests=(CHANGES,),
    ),
    Fault(
        name="a change drifts at one end alone",
        file="certifier/changes.py",
        old="lengths + 2.0 * drift[:, 0]",
        new="lengths + drift[:, 0]",
        tests=(CHANGES,),
    ),
    Fault(
        name="sums do not grow with the ball",
        file="certifier/proof/following.py",
        old="return sum_of(self._form(radius=self._values[value].growth), self._values[value].drift)",
        new="return self._values[value].drift",
        tests=(DRIFTS,),
    ),
    Fault(
        name="measured magnitudes leave out the offset",
        file="certifier/terms/affine.py",
        old="return size if self.offset_magnitude is None else size + self.offset_magnitude",
        new="return size",
        tests=(DRIFTS,),
    ),
    Fault(
        name="the activations' own units are free",
        file="certifier/proof/following.py",
        old="return _fresh(sum_of(drift, self._own_of_activation(term, reached)), growth)",
        new="return _fresh(drift, growth)",
        tests=(DRIFTS,),
    ),
    Fault(
        name="casting the input is free",
        file="certifier/proof/following.py",
        old="drift[self._position[source.name]] = unit",
        new="drift[self._position[source.name]] = 0.0",
        tests=(DRIFTS,),
    ),
    Fault(
        name="weights that the engine computes itself are taken as exact",
        file="certifier/proof/drifting.py",
        old="for blur in term.blurs:",
        new="for blur in ():",
        tests=(DRIFTS,),
    ),
    Fault(
        name="a pair pays for the rounding of one of its outputs only",
        file="certifier/proof/drifts.py",
        old="fixed = own + own[np.arange(len(label)), label][:, None]",
        new="fixed = 1.0 * own",
        tests=(DRIFTS, ARITHMETIC),
    ),
    Fault(
        name="the drift does not grow with the ball",
        file="certifier/certificates.py",
        old="return left, strictly_below(left, np.nextafter(constants + growth, np.inf))",
        new="return left, strictly_below(left, constants)",
        tests=(ARITHMETIC,),
    ),
    Fault(
        name="overflow inside of the ball is not excluded",
        file="certifier/certificates.py",
        old="radius = np.where(finite, np.minimum(radii.min(axis=1), room), 0.0)",
        new="radius = np.where(finite, radii.min(axis=1), 0.0)",
        tests=(ARITHMETIC,),
    ),
    Fault(
        name="norms of magnitudes are read off one application",
        file="certifier/proof/magnitudes.py",
        old="return float(sqrt_upper(np.max(div_upper(sums, w), initial=0.0)))",
        new="return float(np.linalg.norm(image) / np.linalg.norm(w))",
        tests=(DRIFTS,),
    ),
    Fault(
        name="differences of served answers are bounded as if nothing were rounded",
        file="certifier/prediction.py",
        old="rounding = add_upper(self._rounding(first), self._rounding(second))",
        new="rounding = np.zeros_like(outputs[0])",
        tests=(ARITHMETIC,),
    ),
)
