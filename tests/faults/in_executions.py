"""Faults in what bounds an execution near the values at hand: errors in the L2 norm, runs of maps, single steps."""

from __future__ import annotations

from tests.faults.fault import PREDICTION, PROOF, SELF_TEST, Fault

LENGTHS = PROOF + "test_stray_lengths.py"
STEPS = PROOF + "test_steps_of_executions.py"
KERNELS = PROOF + "test_drifts_of_kernels.py"
RUNS = "tests/certifier/test_runs.py"

FAULTS = (
    Fault(
        name="drifts of another build are taken for today's",
        file="certifier/packing.py",
        old='if "drift_layout" not in arrays or arrays["drift_layout"].tolist() != DRIFT_LAYOUT:',
        new="if False:",
        tests=("tests/certifier/test_arithmetic.py",),
    ),
    Fault(
        name="sums are measured at half of their size",
        file="certifier/proof/following.py",
        old="up(1.0 / (term.count * REFERENCE.unit))",
        new="up(0.5 / (term.count * REFERENCE.unit))",
        tests=(PROOF + "test_drifts.py",),
    ),
    Fault(
        name="the product of two movements is left out",
        file="certifier/products.py",
        old="(by_second[:, None] + lengths[1]) * lengths[0] + own",
        new="by_second[:, None] * lengths[0] + own",
        tests=(LENGTHS,),
    ),
    Fault(
        name="a product in the L2 norm rounds nothing",
        file="certifier/products.py",
        old="(by_second[:, None] + lengths[1]) * lengths[0] + own",
        new="(by_second[:, None] + lengths[1]) * lengths[0]",
        tests=(LENGTHS,),
    ),
    Fault(
        name="probabilities stay where they are",
        file="certifier/vector_functions/softmaxes.py",
        old="            steepest = np.minimum(grown.max(axis=(1, 2, 3))[:, None], 0.5)",
        new="            steepest = np.minimum(values.max(axis=(1, 2, 3))[:, None], 0.5)",
        tests=(LENGTHS,),
    ),
    Fault(
        name="a softmax in the L2 norm rounds nothing",
        file="certifier/vector_functions/softmaxes.py",
        old="            return steepest * length * (1 + self._unit(at)) + self._length(kernel)",
        new="            return steepest * length * (1 + self._unit(at))",
        tests=(LENGTHS,),
    ),
    Fault(
        name="a deviation does not shrink",
        file="certifier/vector_functions/normalising.py",
        old="        shrinking = spread / math.sqrt(count)",
        new="        shrinking = 0.0 * spread",
        tests=(LENGTHS,),
    ),
    Fault(
        name="the offset of a run is forgotten",
        file="certifier/runs.py",
        old="float(add_upper(stretched, constant))",
        new="float(stretched)",
        tests=(RUNS,),
    ),
    Fault(
        name="a run stretches as its last map",
        file="certifier/runs.py",
        old="self._norm_of(chain.operator, chain.name)",
        new="self._norm_of(term.operators[0], term.name)",
        tests=(RUNS,),
    ),
    Fault(
        name="entries are cut at half of the length",
        file="certifier/runs.py",
        old="        np.minimum(reach.upper, length),",
        new="        np.minimum(reach.upper, 0.5 * length),",
        tests=(RUNS,),
    ),
    Fault(
        name="a value that is not a number agrees with any",
        file="certifier/proof/execution.py",
        old="(np.isnan(seen) & np.isnan(value))",
        new="(np.isnan(seen) | np.isnan(value))",
        tests=(STEPS,),
    ),
    Fault(
        name="what is not executed is exact",
        file="certifier/proof/execution.py",
        old="        values[term.output] = value, allowed\n",
        new="        values[term.output] = value, np.zeros_like(allowed)\n",
        tests=(STEPS,),
    ),
    Fault(
        name="steps are compared with the reference's own values",
        file="certifier/proof/execution.py",
        old="            values[term.output] = seen, np.zeros_like(seen)",
        new="            values[term.output] = value, np.zeros_like(value)",
        tests=(SELF_TEST,),
    ),
    Fault(
        name="a run leads through a term without norms",
        file="certifier/proof/execution.py",
        old="return replace(fresh, entered=np.full_like(length, np.inf)) if isinstance(term, Affine) else fresh",
        new="return fresh",
        tests=(STEPS,),
    ),
    Fault(
        name="a run gathers the errors of its last map alone",
        file="certifier/proof/execution.py",
        old="    gathered = gain.sources[0] * sources[0].gathered + added if is_run",
        new="    gathered = added if is_run",
        tests=(STEPS,),
    ),
    Fault(
        name="rounded coordinates are not charged on the way",
        file="certifier/proof/following.py",
        old="own, reached = _sum(own, _times(BLURRING, moved)), _sum(reached, moved)",
        new="reached = _sum(reached, moved)",
        tests=(KERNELS,),
    ),
    Fault(
        name="rounded coordinates are not charged in the last maps",
        file="certifier/proof/drifting.py",
        old="gains=mul_upper(BLURRING, lengths)))",
        new="gains=0.0 * lengths))",
        tests=(KERNELS,),
    ),
    Fault(
        name="sums that are divided last cannot overflow",
        file="certifier/proof/following.py",
        old="up(2.0 * term.swelling / LARGEST[term.dtype])",
        new="2.0 / LARGEST[term.dtype]",
        tests=(KERNELS,),
    ),
    Fault(
        name="nothing inside of an activation can overflow",
        file="certifier/proof/following.py",
        old="_times(INNER / LARGEST[term.dtype], self.executed(term.sources[0]))",
        new="_times(0.0, self.executed(term.sources[0]))",
        tests=(KERNELS,),
    ),
    Fault(
        name="patterns may hold numbers of any size",
        file="certifier/patterns/forms.py",
        old="self._known[name] = _moderate(self.node(node))",
        new="self._known[name] = self.node(node)",
        tests=(KERNELS,),
    ),
    Fault(
        name="inputs are rounded to double precision silently",
        file="certifier/prediction.py",
        old="            rows = exact_float64(values)",
        new="            rows = values.astype(np.float64)",
        tests=(PREDICTION,),
    ),
)
