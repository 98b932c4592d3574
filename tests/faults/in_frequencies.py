"""Faults in the proof on frequencies and in what of a network it is a proof of."""

from tests.faults.fault import PROOF, Fault

FREQUENCY = PROOF + "test_proof_frequency.py"
COVARIANCES = PROOF + "test_covariances_in_many_digits.py"
LOWERING = "tests/certifier/test_frequency_lowering.py"
CUTS = "tests/certifier/test_frequency_cuts.py"
METHOD = "tests/certifier/test_frequency_method.py"
PARTS = "tests/certifier/test_frequency_parts.py"
NARROWING = PROOF + "test_narrowing.py"

FAULTS = (
    Fault(
        name="interleaved tensors all land in the first channels",
        file="certifier/frequencies/lowering.py",
        old="every[:, placed.start : placed.start + placed.own]",
        new="every[:, : placed.own]",
        tests=("tests/certifier/test_frequency_lowering.py",),
    ),
    Fault(
        name="a matrix over channels reads neighbours as strangers",
        file="certifier/frequencies/linear.py",
        old="np.kron(np.kron(np.eye(operator.before), operator.dense()), np.eye(within))",
        new="np.kron(np.kron(np.eye(operator.before), np.eye(within)), operator.dense())",
        tests=("tests/certifier/test_frequency_lowering.py",),
    ),
    Fault(
        name="a flattened point is read with the wrong sign",
        file="certifier/frequencies/maps.py",
        old="        offsets=np.stack(points, axis=1).astype(np.int64),",
        new="        offsets=-np.stack(points, axis=1).astype(np.int64),",
        tests=(LOWERING,),
    ),
    Fault(
        name="what lies outside of the box is taken as zero",
        file="certifier/frequencies/recording.py",
        old="if reading.outside and not view.signal.is_clean:",
        new="if False:",
        tests=(LOWERING,),
    ),
    Fault(
        name="the torus leaves no room for the padding",
        file="certifier/frequencies/maps.py",
        old="stride * geometry.outputs, *ends)",
        new="stride * geometry.outputs)",
        tests=(LOWERING,),
    ),
    Fault(
        name="zeros around a single point are read on its torus",
        file="certifier/frequencies/recording.py",
        old="if reading.outside and view.signal.is_point:",
        new="if False:",
        tests=(CUTS,),
    ),
    Fault(
        name="a torus of one point holds whatever is read",
        file="certifier/frequencies/scheduling.py",
        old="        if self.is_point and math.prod(reach) > 1:",
        new="        if False:",
        tests=(CUTS,),
    ),
    Fault(
        name="a mask does not widen the slopes",
        file="certifier/frequencies/recording.py",
        old="lower, upper = np.minimum(lower, 0.0), np.maximum(upper, 0.0)",
        new="lower, upper = lower, upper",
        tests=(LOWERING,),
    ),
    Fault(
        name="an output that is given twice counts once",
        file="certifier/frequencies/method.py",
        old="    return float(sqrt_upper(float(np.bincount(lowered.output.all_indices).max())))",
        new="    return 1.0",
        tests=(METHOD,),
    ),
    Fault(
        name="what lies before the origin is forgotten",
        file="certifier/frequencies/method.py",
        old="before = product.lipschitz_upper(plan.origin)",
        new="before = 1.0",
        tests=(METHOD,),
    ),
    Fault(
        name="a part may also read what lies before its origin",
        file="certifier/frequencies/plans.py",
        old="        if value not in producers:",
        new="        if value == network.input.name:\n            continue\n        if value not in producers:",
        tests=(PARTS,),
    ),
    Fault(
        name="a part's constant is taken for that from the input on",
        file="certifier/bounds/product.py",
        old="return float(mul_upper(constant, self.lipschitz_upper(source)))",
        new="return constant",
        tests=(PARTS,),
    ),
    Fault(
        name="what lies behind the norms inside of a part is looked through it",
        file="certifier/paths.py",
        old=" and value not in self.anchors else None",
        new=" else None",
        tests=(PARTS,),
    ),
    Fault(
        name="fewer rows are not proved to make no vector shorter",
        file="certifier/proof/frequency/narrowing.py",
        old="root = np.linalg.cholesky(gram[0] + slack * scale * np.eye(columns))",
        new="root = np.linalg.cholesky(gram[0] - slack * scale * np.eye(columns))",
        tests=(NARROWING,),
    ),
    Fault(
        name="weights are narrowed without their error",
        file="certifier/proof/frequency/narrowing.py",
        old="np.eye(step.rows)[None], stray_upper(step))",
        new="np.eye(step.rows)[None], 0.0)",
        tests=(NARROWING,),
    ),
    Fault(
        name="a step with taps at other points is alike at all frequencies",
        file="certifier/proof/frequency/state.py",
        old="if self.is_alike and all(block.is_pointwise for block in step.blocks):",
        new="if self.is_alike:",
        tests=(FREQUENCY,),
    ),
    Fault(
        name="a joined scaling is exact",
        file="certifier/frequencies/maps.py",
        old="        for each in (self.relative_error, error, ROUNDED_ONCE):",
        new="        for each in ():",
        tests=(CUTS,),
    ),
    Fault(
        name="aliases are added up and not averaged",
        file="certifier/proof/frequency/state.py",
        old="hermitian(total / count)",
        new="hermitian(total / (2 * count))",
        tests=(FREQUENCY,),
    ),
    Fault(
        name="conjugates are not conjugated",
        file="certifier/proof/frequency/state.py",
        old="            np.conjugate(part, out=part, where=opposite[:, alias, None, None])\n",
        new="",
        tests=(FREQUENCY,),
    ),
    Fault(
        name="the middle slope is dropped",
        file="certifier/proof/frequency/state.py",
        old="        scale[rows] = middle\n",
        new="        scale[rows] = np.minimum(middle, 0.0)\n",
        tests=(FREQUENCY,),
    ),
    Fault(
        name="the half slope is rounded to nearest",
        file="certifier/proof/frequency/steps.py",
        old="half = np.maximum(add_upper(self.upper, -middle), add_upper(middle, -self.lower))",
        new="half = 0.5 * self.upper - 0.5 * self.lower",
        tests=(FREQUENCY,),
    ),
    Fault(
        name="a multiplier is not proved to dominate",
        file="certifier/proof/frequency/congruence.py",
        old="        pending = pending[~np.concatenate(proved)]\n",
        new="        pending = pending[:0]\n",
        tests=(FREQUENCY,),
    ),
    Fault(
        name="a restart is not proved to dominate",
        file="certifier/proof/frequency/state.py",
        old="if not is_dominated(self.matrices, variances):",
        new="if False:",
        tests=(FREQUENCY,),
    ),
    Fault(
        name="the error of a product is left out",
        file="certifier/proof/frequency/congruence.py",
        old="    rounding = mul_upper(4.0 * gamma_upper(2 * length + 2, FLOAT64), mul_upper(size, size))",
        new="    rounding = mul_upper(0.0, size)",
        tests=(FREQUENCY,),
    ),
    Fault(
        name="a factor that strays does so on one side only",
        file="certifier/proof/frequency/congruence.py",
        old="strayed = mul_upper(stray, add_upper(mul_upper(2.0, size), stray))",
        new="strayed = mul_upper(stray, size)",
        tests=(COVARIANCES,),
    ),
    Fault(
        name="the errors of aliases are left out",
        file="certifier/proof/frequency/state.py",
        old="sum_upper(error[index], axis=1), index.shape[1])",
        new="np.zeros(len(index)), index.shape[1])",
        tests=(COVARIANCES,),
    ),
    Fault(
        name="the errors of a pair count for one of the two",
        file="certifier/proof/frequency/state.py",
        old="sum_upper(weights * error, axis=None)",
        new="0.5 * sum_upper(error, axis=None)",
        tests=(COVARIANCES,),
    ),
    Fault(
        name="the error of the weights is left out",
        file="certifier/proof/frequency/symbols.py",
        old="relative = add_upper(mul_upper(1.5, rounding), block.relative_error)",
        new="relative = mul_upper(1.5, rounding)",
        tests=(FREQUENCY,),
    ),
    Fault(
        name="a channel's windows hand over another channel's variance",
        file="certifier/frequencies/lowering.py",
        old="            and view.indices is None\n",
        new="",
        tests=(CUTS,),
    ),
    Fault(
        name="an entry that a cut reads twice counts once",
        file="certifier/frequencies/lowering.py",
        old="repeats = float(sqrt_upper(float(np.bincount(seen).max())))",
        new="repeats = 1.0",
        tests=(CUTS,),
    ),
)
