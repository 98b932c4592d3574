"""Faults in the multiplier method, the joint form it rests on and the loop transformation."""

from __future__ import annotations

from tests.faults.fault import PROOF, Fault

MULTIPLIERS = "tests/certifier/bounds/test_multipliers.py"
COMPARATORS = "tests/certifier/bounds/test_comparators.py"
JOINT = "tests/certifier/bounds/test_joint.py"
LADDER = "tests/certifier/test_ladder.py"
FORMS = PROOF + "test_proof_multipliers.py"

CALIBRATION = "tests/certifier/test_calibration.py"

FAULTS = (
    Fault(
        name="a calibration file's claimed shape is allocated",
        file="certifier/calibration.py",
        old="if any(size < 0 for size in shape) or len(data) - file.tell() != count * dtype.itemsize:",
        new="if False:",
        tests=(CALIBRATION,),
    ),
    Fault(
        name="calibration inputs may be NaN",
        file="certifier/calibration.py",
        old="bad = ~np.isfinite(rows).all(axis=1)",
        new="bad = np.zeros(len(rows), dtype=bool)",
        tests=(CALIBRATION,),
    ),
    Fault(
        name="a calibration file of another digest passes",
        file="certifier/calibration.py",
        old="if named not in (None, digest):",
        new="if False:",
        tests=(CALIBRATION,),
    ),
    Fault(
        name="the smaller of a comparator's entries gets the larger one's share",
        file="certifier/bounds/comparators.py",
        old="(0.5, -0.5) if self.largest else (-0.5, 0.5)",
        new="(0.5, 0.5) if self.largest else (-0.5, 0.5)",
        tests=(COMPARATORS,),
    ),
    Fault(
        name="groups are sorted by half of the rounds",
        file="certifier/bounds/comparators.py",
        old="for turn in range(self.count):",
        new="for turn in range((self.count + 1) // 2):",
        tests=(COMPARATORS,),
    ),
    Fault(
        name="the last entries of a sorted group are kept",
        file="certifier/bounds/comparators.py",
        old="means[:kept], magnitude: shares[:kept]",
        new="means[-kept:], magnitude: shares[-kept:]",
        tests=(COMPARATORS,),
    ),
    Fault(
        name="slopes below zero are taken as zero",
        file="certifier/proof/multipliers.py",
        old="curvature = (lower * upper) * multipliers",
        new="curvature = (np.maximum(lower, 0.0) * upper) * multipliers",
        tests=(FORMS,),
    ),
    Fault(
        name="the middle of a slope interval is its upper end",
        file="certifier/proof/multipliers.py",
        old="middle = (lower / 2 + upper / 2) * multipliers",
        new="middle = upper * multipliers",
        tests=(FORMS,),
    ),
    Fault(
        name="a stretch counts its constant once",
        file="certifier/proof/multipliers.py",
        old="-mul_upper(multiplier, mul_upper(constant, constant)))",
        new="-mul_upper(multiplier, constant))",
        tests=(FORMS,),
    ),
    Fault(
        name="negative multipliers pass",
        file="certifier/proof/multipliers.py",
        old="(np.isfinite(multipliers) & (multipliers >= 0)).all()",
        new="np.isfinite(multipliers).all()",
        tests=(FORMS,),
    ),
    Fault(
        name="how far a map is known plays no role for its square",
        file="certifier/proof/multipliers.py",
        old="error = _total(error, rounding, apart, _rounded(values[:size, :size]))",
        new="error = _total(error, rounding, _rounded(values[:size, :size]))",
        tests=(FORMS,),
    ),
    Fault(
        name="how far a map is known plays no role off the diagonal",
        file="certifier/proof/multipliers.py",
        old="error = _total(error, rounding, mul_upper(steepest, read.distance))",
        new="error = _total(error, rounding)",
        tests=(FORMS,),
    ),
    Fault(
        name="a readout takes its map for exact",
        file="certifier/proof/multipliers.py",
        old="return _psd(joint, read.distance)",
        new="return _psd(joint, 0.0)",
        tests=(FORMS,),
    ),
    Fault(
        name="a precision is not subtracted where values are dropped",
        file="certifier/proof/multipliers.py",
        old="block = rest[np.ix_(kept, kept)] - smaller",
        new="block = rest[np.ix_(kept, kept)] - 0.5 * smaller",
        tests=(FORMS,),
    ),
    Fault(
        name="cancellation in a pair's constant is forgotten",
        file="certifier/proof/multipliers.py",
        old="mul_upper(4.0 * FLOAT64, magnitude))",
        new="0.0 * magnitude)",
        tests=(FORMS,),
    ),
    Fault(
        name="numbers out of range are used",
        file="certifier/proof/multipliers.py",
        old="return Form(values=np.zeros((size + len(own),) * 2), error=np.inf)",
        new="pass",
        tests=(FORMS,),
    ),
    Fault(
        name="an anchor dies while it is still read",
        file="certifier/bounds/joint.py",
        old="if self.readers.get(anchor, -1) > position]",
        new="if anchor == term.output]",
        tests=(JOINT,),
    ),
    Fault(
        name="parts of one source replace each other",
        file="certifier/bounds/joint.py",
        old="maps[anchor] = applied if anchor not in maps else _added(maps[anchor], applied)",
        new="maps[anchor] = applied",
        tests=(JOINT,),
    ),
    Fault(
        name="composed maps are taken for exact",
        file="certifier/bounds/joint.py",
        old="    distance = float(magnitude_norm_upper(error)) if error.size else 0.0",
        new="    distance = 0.0",
        tests=(JOINT,),
    ),
    Fault(
        name="a live product counts the larger factor only",
        file="certifier/bounds/joint.py",
        old="mul_upper(p, sqrt_upper(add_upper(1.0, ratio))),",
        new="mul_upper(p, 0.0),",
        tests=(JOINT,),
    ),
    Fault(
        name="the remainder of a split activation keeps its old slopes",
        file="certifier/bounds/loops.py",
        old="slope_upper=np.nextafter(upper - middle, np.inf),",
        new="slope_upper=np.nextafter((upper - middle) / 2, np.inf),",
        tests=(LADDER,),
    ),
    Fault(
        name="the ladder takes what a rung promised instead of what it proved",
        file="certifier/bounds/multipliers.py",
        old="            if implies(form, smaller, step.kept):",
        new="            if True:",
        tests=(MULTIPLIERS,),
    ),
)
