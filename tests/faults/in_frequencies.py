"""Faults in the proof on frequencies and in what of a network it is a proof of."""

from tests.faults.fault import PROOF, Fault

FREQUENCY = PROOF + "test_proof_frequency.py"
COVARIANCES = PROOF + "test_covariances_in_many_digits.py"
LOWERING = "tests/certifier/test_frequency_lowering.py"
CUTS = "tests/certifier/test_frequency_cuts.py"
METHOD = "tests/certifier/test_frequency_method.py"

FAULTS = (
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
        old="repeats = float(sqrt_upper(float(np.bincount(indices).max())))",
        new="repeats = 1.0",
        tests=(METHOD,),
    ),
    Fault(
        name="what lies before the origin is forgotten",
        file="certifier/frequencies/method.py",
        old="before = 1.0 if origin == network.input.name else ProductBound(network, norms).lipschitz_upper(origin)",
        new="before = 1.0",
        tests=(METHOD,),
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
