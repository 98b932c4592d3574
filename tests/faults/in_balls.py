"""Faults in what is proved of balls around inputs."""

from tests.faults.fault import Fault

BALLS = ("tests/certifier/proof/test_local.py",)
LINES = ("tests/certifier/proof/test_local_relaxations.py",)
TRAPS = ("tests/certifier/proof/test_local_traps.py",)
REFINED = ("tests/certifier/test_refinement.py",)
BUDGETS = ("tests/certifier/proof/test_local_budgets.py",)
HOME = "certifier/proof/local/"

FAULTS = (
    Fault(
        name="a line above a straight function has the intercept of one below",
        file=HOME + "relaxations.py",
        old="above = -np.min(_straight(-values, -upper_slope * points), axis=0)",
        new="above = np.min(_straight(values, upper_slope * points), axis=0)",
        tests=LINES,
    ),
    Fault(
        name="a curve is taken for its chord between two points",
        file=HOME + "relaxations.py",
        old="- theta * drop",
        new="- 0.0 * drop",
        tests=LINES,
    ),
    Fault(
        name="a derivative's turns between the ends are overlooked",
        file="certifier/terms.py",
        old="inside = (lower <= bend.at + bend.near)",
        new="inside = (lower > bend.at + bend.near)",
        tests=LINES,
    ),
    Fault(
        name="a maximum follows its winner although another may overtake it",
        file=HOME + "selections.py",
        old="gap = np.where(reach.max(axis=2) <= least, 0.0,",
        new="gap = np.where(reach.max(axis=2) <= np.inf, 0.0,",
        tests=LINES,
    ),
    Fault(
        name="functionals are not charged for rounding",
        file=HOME + "backward.py",
        old="return 2.0 * (gamma_upper(count, FLOAT64)",
        new="return 0.0 * (gamma_upper(count, FLOAT64)",
        tests=BALLS,
    ),
    Fault(
        name="the ball is taken for a smaller one of another norm",
        file=HOME + "backward.py",
        old='return np.sqrt(np.einsum("qn,qn->q", a, a) + a.shape[1] * TINY) * SLACK',
        new="return np.max(np.abs(a), axis=1) * SLACK",
        tests=BALLS,
    ),
    Fault(
        name="negative coefficients take the line of positive ones",
        file=HOME + "backward.py",
        old="part = a * _of(step.middle, rows) + size * _of(step.half, rows)",
        new="part = a * _of(step.middle, rows) + a * _of(step.half, rows)",
        tests=BALLS,
    ),
    Fault(
        name="intercepts of negative coefficients are those of positive ones",
        file=HOME + "backward.py",
        old="base = base + _dots(size, _of(step.spread, rows))\n                if step.at",
        new="base = base + _dots(a, _of(step.spread, rows))\n                if step.at",
        tests=BALLS,
    ),
    Fault(
        name="a term without lines moves by half its length",
        file=HOME + "backward.py",
        old="_norms(a) * length) * SLACK",
        new="_norms(a) * length) * 0.5",
        tests=BALLS,
    ),
    Fault(
        name="what is known of smaller balls is used for larger ones",
        file=HOME + "analysis.py",
        old="return (self.radii >= balls.radii)[:, None]",
        new="return (self.radii >= 0.0 * balls.radii)[:, None]",
        tests=BALLS,
    ),
    Fault(
        name="an affine map moves values by the row sums of their lengths over the root of two",
        file=HOME + "spans.py",
        old="rows = rows + norm * source.length",
        new="rows = rows + 0.7 * norm * source.length",
        tests=BALLS,
    ),
    Fault(
        name="only rising slopes move values",
        file=HOME + "spans.py",
        old="steepest = np.maximum(np.abs(least), np.abs(most))",
        new="steepest = np.maximum(most, 0.0)",
        tests=BALLS,
    ),
    Fault(
        name="functionals are taken for unit vectors behind an activation",
        file=HOME + "backward.py",
        old="columns, units = self._network.sizes[term.sources[0]], None",
        new="columns = self._network.sizes[term.sources[0]]",
        tests=BALLS,
    ),
    Fault(
        name="functionals are taken for unit vectors behind a value that is added to itself",
        file=HOME + "backward.py",
        old="return len(term.operators) == 1 and isinstance(term.operators[0], Identity)",
        new="return all(isinstance(operator, Identity) for operator in term.operators)",
        tests=TRAPS,
    ),
    Fault(
        name="functionals are not charged for the rounding of offsets that cancelled",
        file=HOME + "backward.py",
        old="size = size + term.offset_magnitude",
        new="size = size + 0.0 * term.offset_magnitude",
        tests=TRAPS,
    ),
    Fault(
        name="slopes at a row outside of the box are left out",
        file=HOME + "spans.py",
        old="lower=np.minimum(np.maximum(np.nextafter(x - reach, -np.inf), lower), x),",
        new="lower=np.maximum(np.nextafter(x - reach, -np.inf), lower),",
        tests=TRAPS,
    ),
    Fault(
        name="rows of balls are evaluated in their own precision",
        file=HOME + "analysis.py",
        old="x, radii = exact_float64(x), exact_float64(radii)",
        new="radii = exact_float64(radii)",
        tests=TRAPS,
    ),
    Fault(
        name="values move twice as far before their lines are short of anything",
        file=HOME + "budgets.py",
        old="apart - (at.error + bend.near)",
        new="2.0 * apart - (at.error + bend.near)",
        tests=BUDGETS,
    ),
    Fault(
        name="displacements within a length cost nothing for the length itself",
        file=HOME + "budgets.py",
        old="price / 2 * np.square(length) * SLACK - room",
        new="0.0 * price * np.square(length) * SLACK - room",
        tests=BUDGETS,
    ),
    Fault(
        name="lines lose their distance from the slopes' middle, not from their ends",
        file=HOME + "budgets.py",
        old="np.maximum(np.maximum(most - slope, slope - least), 0.0)",
        new="np.minimum(np.maximum(most - slope, 0.0), np.maximum(slope - least, 0.0))",
        tests=BUDGETS,
    ),
    Fault(
        name="budgets of lines above are those of lines below",
        file=HOME + "budgets.py",
        old="np.where(below, pair[0][:, used], pair[1][:, used])",
        new="np.where(below, pair[0][:, used], pair[0][:, used])",
        tests=BUDGETS,
    ),
    Fault(
        name="lines are short of more at the centre than they are",
        file=HOME + "budgets.py",
        old="short = sign * (centre.value - product - intercept)",
        new="short = np.abs(centre.value) + np.abs(product) + np.abs(intercept)",
        tests=BUDGETS,
    ),
    Fault(
        name="a goal's allowance for rounding does not grow with the radius",
        file=HOME + "ledger.py",
        old="np.nextafter(found.steepness + growth, np.inf)",
        new="np.nextafter(found.steepness + 0.0 * growth, np.inf)",
        tests=BALLS,
    ),
    Fault(
        name="one goal of a row is enough for its radius",
        file=HOME + "ledger.py",
        old="proved = self.below.radii(self.analysis.balls.radii[:, None]).min(axis=1)",
        new="proved = self.below.radii(self.analysis.balls.radii[:, None]).max(axis=1)",
        tests=REFINED,
    ),
    Fault(
        name="goals sharpened through slopes of their own are read at the centre",
        file=HOME + "ledger.py",
        old="steepness[picked] = np.where(take, found.steepness, steepness[picked])",
        new="steepness[picked] = np.where(take, 0.0, steepness[picked])",
        tests=BALLS,
    ),
    Fault(
        name="what is known is taken for other rows' balls",
        file=HOME + "analysis.py",
        old="lower[rows], upper[rows] = other.ends[name]",
        new="lower[:], upper[:] = other.ends[name]",
        tests=BALLS,
    ),
    Fault(
        name="drifts are not taken off the goals",
        file="certifier/refinement.py",
        old="return Goals(coefficients=coefficients, constants=_less(np.zeros(others.shape), fixed), growth=growth)",
        new="return Goals(coefficients=coefficients, constants=np.zeros(others.shape), growth=growth)",
        tests=REFINED,
    ),
    Fault(
        name="a binary classifier's other side has the threshold of this one",
        file="certifier/refinement.py",
        old="constants = np.nextafter(-side * theta - theta_stray, -np.inf)[:, None]",
        new="constants = np.nextafter(-theta - theta_stray + 0.0 * side, -np.inf)[:, None]",
        tests=REFINED,
    ),
)
