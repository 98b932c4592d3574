"""The four self-tests of an upload; whichever fails, nothing is certified.

1. engine agrees: the served engine and the bounded network differ by no more than the computed rounding bound, at the
   outputs and, so that depth hides nothing, at every single step from what the engine computed before it.
2. lower below upper: no stretch that was really observed exceeds the proved constant.
3. attack flips nothing: gradient attacks inside the certified radii of probe inputs change no class, neither of the
   exact network nor of the execution that serves.
4. sums are classical: the engine's linear layers are sums of the products that define them (A3), at the network's own
   shapes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from certifier.box import Box
from certifier.documents import Arithmetic, Certificate, SelfTest, SelfTestCheck
from certifier.engine import Engine
from certifier.errors import SelfTestFailed
from certifier.executing import description_of
from certifier.executions import Execution
from certifier.flow import Network
from certifier.kernels import look_at_kernels
from certifier.network import observable_model
from certifier.proof.drifts import Drifts
from certifier.proof.execution import Gains, enclose, steps
from certifier.search.attack import attack_in_ball, probe_inputs
from certifier.serving import Decider
from certifier.terms import EXACT, PRECISIONS

Floats = NDArray[np.float64]
ATTACK_STEPS = (1.0, 0.3, 0.1)
ATTACK_ITERATIONS = 5
PROBES = 8
PROBE_ELEMENTS = 2**24
"""Probe rows are fewer where one row's values are so many that eight would take too long."""
OBSERVED_PROBES = 2
LARGEST_ATTACK = 1e6
"""A radius beyond this is attacked only this far, where the arithmetic of the attack still means something."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What is tested: the bounded network, the engine that serves it and the constants that were proved.

    `drifts` bound what the served execution rounds, None for the exact network; `is_evaluated` tells that answers come
    from the network's float64 evaluation instead of the engine.
    """

    network: Network
    engine: Engine
    decider: Decider
    gains: Gains
    drifts: Drifts | None
    is_evaluated: bool
    box: Box
    lower: float
    upper: float


def probes_for(network: Network, engine: Engine, box: Box, *, seed: int) -> Floats:
    """Inputs of the box to test a network with, exact in the engine's type.  Shapes: [B, input_size]."""
    rows = min(PROBES, max(1, PROBE_ELEMENTS // sum(network.sizes.values())))
    return engine.cast(probe_inputs(box, count=rows, seed=seed))


def run_self_test(subject: Subject, probes: Floats) -> SelfTest:
    """All four tests, with `probes` [B, input_size], which the engine's input type must represent exactly.

    Raises: SelfTestFailed, naming the test.
    """
    checks = [
        _engine_agrees(subject, probes),
        _lower_below_upper(subject),
        _attack_flips_nothing(subject, probes),
        _sums_are_classical(subject),
    ]
    for check in checks:
        if not check.passed:
            raise SelfTestFailed(check.name, check.detail)
    return SelfTest(passed=True, checks=checks)


def arithmetic_here(certificate: Certificate, execution: Execution, subject: Subject) -> Arithmetic:
    """What answers say of their arithmetic: the certificate's word, once what serves here has passed the self-test.

    Raises: SelfTestFailed where the certificate names another engine or machine, and this one fails.
    """
    stated, known, here = certificate.arithmetic, certificate.execution, description_of(execution)
    if known == here:
        return stated
    run_self_test(subject, probes_for(subject.network, subject.engine, subject.box, seed=0))
    if known is None:
        other = certificate.engine
    else:
        other = "another machine or other options" if known.name == here.name else known.name
    note = f"Certified with {other}; {here.name} on this machine passed the self-test when the model was loaded."
    return stated.model_copy(update={"statement": f"{stated.statement} {note}"})


def _engine_agrees(subject: Subject, probes: Floats) -> SelfTestCheck:
    enclosure = enclose(
        subject.network,
        probes,
        input_radius=np.zeros_like(probes),
        precisions=PRECISIONS,
        gains=subject.gains,
    )
    served = subject.engine.run(probes)
    usable = np.isfinite(enclosure.radius).all(axis=1) & np.isfinite(served).all(axis=1)
    difference = np.abs(served - enclosure.centre)[usable]
    allowed = enclosure.radius[usable]
    stepwise = _steps_agree(subject, probes[:OBSERVED_PROBES], served)
    if not usable.any() and not stepwise.is_complete:
        return SelfTestCheck(
            name="engine agrees",
            passed=False,
            detail="no probe input has finite outputs and a finite rounding bound, so nothing can be compared",
        )
    if stepwise.failed is not None:
        return SelfTestCheck(name="engine agrees", passed=False, detail=stepwise.failed)
    detail = stepwise.detail
    if usable.any():
        ratio = float(np.max(np.divide(difference, allowed, out=np.zeros_like(difference), where=allowed > 0)))
        detail = (
            f"{int(usable.sum())} of {len(probes)} probe inputs compared; largest difference {difference.max():.3g}, "
            f"at most {ratio:.3g} of the computed rounding bound; {detail}"
        )
    return SelfTestCheck(name="engine agrees", passed=bool((difference <= allowed).all()), detail=detail)


@dataclass(frozen=True, kw_only=True)
class _Stepwise:
    """What comparing step by step found; complete where a probe was followed to the end with finite bounds only."""

    failed: str | None
    is_complete: bool
    detail: str


def _steps_agree(subject: Subject, probes: Floats, served: Floats) -> _Stepwise:
    """Every value that the engine computes, against its own term at what the engine computed before."""
    network = subject.network
    observer = Engine(observable_model(network), network.input)
    followed = compared = 0
    largest = 0.0
    for probe, answer in zip(probes, served, strict=False):
        executed = observer.observe(probe)
        if not np.isfinite(answer).all():
            continue
        if not np.array_equal(executed[network.output], answer):
            failed = "the served engine answers otherwise than the same graph whose inner values are looked at"
            return _Stepwise(failed=failed, is_complete=True, detail="")
        is_complete = True
        for step in steps(network, probe, executed, precisions=PRECISIONS):
            if (step.difference > step.allowed).any():
                worst = int(np.argmax(step.difference - step.allowed))
                failed = (
                    f"node {step.term.name!r} ({step.term.operator}): entry {worst} differs by "
                    f"{step.difference[worst]:.3g}, rounding explains {step.allowed[worst]:.3g}"
                )
                return _Stepwise(failed=failed, is_complete=True, detail="")
            is_complete &= bool(np.isfinite(step.allowed).all())
            compared += 1
            ratios = np.divide(
                step.difference, step.allowed, out=np.zeros_like(step.difference), where=step.allowed > 0
            )
            largest = max(largest, float(ratios.max(initial=0.0)))
        followed += is_complete
    detail = f"{compared} values compared one by one, at most {largest:.3g} of what their own rounding explains"
    return _Stepwise(failed=None, is_complete=followed > 0, detail=detail)


def _lower_below_upper(subject: Subject) -> SelfTestCheck:
    return SelfTestCheck(
        name="lower below upper",
        passed=subject.lower <= subject.upper,
        detail=f"observed stretch {subject.lower:.6g}, proved constant {subject.upper:.6g}",
    )


def _attack_flips_nothing(subject: Subject, probes: Floats) -> SelfTestCheck:
    decider, network, probes = subject.decider, subject.network, subject.box.clip(probes)
    if decider.task == "regression":
        return SelfTestCheck(name="attack flips nothing", passed=True, detail="a regressor has no class to flip")
    clean = enclose(network, probes, input_radius=np.zeros_like(probes), precisions=EXACT, gains=subject.gains)
    decisions = decider.decide(clean.centre, clean.radius, None)
    radii = np.minimum(decisions.radius, LARGEST_ATTACK)
    attacked = radii > 0
    if not attacked.any():
        return SelfTestCheck(
            name="attack flips nothing", passed=True, detail="no probe input has a positive radius to attack"
        )
    labels = decisions.label[attacked]
    executed = _attack_on_execution(subject, probes)
    if executed is not None:
        return SelfTestCheck(name="attack flips nothing", passed=False, detail=executed)
    tries = 0
    for points in attack_in_ball(
        network,
        probes[attacked],
        radii[attacked],
        lambda logits: decider.margin_gradient(logits, labels),
        box=subject.box,
        iterations=ATTACK_ITERATIONS,
        steps=ATTACK_STEPS,
    ):
        reached = enclose(network, points, input_radius=np.zeros_like(points), precisions=EXACT, gains=subject.gains)
        flipped = decider.surely_flipped(labels, reached.centre, reached.radius)
        tries += len(points)
        if flipped.any():
            radius = float(radii[attacked][int(np.argmax(flipped))])
            return SelfTestCheck(
                name="attack flips nothing",
                passed=False,
                detail=f"a point within the certified radius {radius:.6g} has another class",
            )
    return SelfTestCheck(
        name="attack flips nothing",
        passed=True,
        detail=f"{tries} gradient attacks inside {int(attacked.sum())} certified radii flipped nothing",
    )


def _sums_are_classical(subject: Subject) -> SelfTestCheck:
    name = "sums are classical"
    if subject.is_evaluated:
        return SelfTestCheck(name=name, passed=True, detail="answers are the float64 evaluation's, not the engine's")
    finding = look_at_kernels(subject.network, seed=0)
    detail = f"{finding.looked_at} kinds of linear layers give back, bit for bit, the inputs that 0 and 1 select"
    return SelfTestCheck(name=name, passed=finding.failed is None, detail=finding.failed or detail)


def _attack_on_execution(subject: Subject, probes: Floats) -> str | None:
    """Whether an attack flips an answer of the served execution inside of the radius certified for it, in words."""
    network, decider = subject.network, subject.decider
    if subject.drifts is None:
        return None
    still = np.zeros_like(probes)
    clean = enclose(
        network,
        probes,
        input_radius=still,
        precisions=EXACT,
        gains=subject.gains,
        measured=subject.drifts.measured,
    )
    around = subject.drifts.at(clean.measures)
    decisions = decider.decide(clean.centre, clean.radius, around)
    attacked = decisions.radius > 0
    labels, radii = decisions.label[attacked], np.minimum(decisions.radius[attacked], LARGEST_ATTACK)
    if not attacked.any():
        return None
    for points in attack_in_ball(
        network,
        probes[attacked],
        radii,
        lambda logits: decider.margin_gradient(logits, labels),
        box=subject.box,
        iterations=ATTACK_ITERATIONS,
        steps=ATTACK_STEPS,
    ):
        served = network.evaluate(points) if subject.is_evaluated else subject.engine.run(points)
        flipped = decider.decide(served, np.zeros_like(served), None).label != labels
        if flipped.any():
            radius = float(radii[int(np.argmax(flipped))])
            return f"a point within the radius {radius:.6g} certified for the served execution has another class"
    return None
