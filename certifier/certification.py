"""bytes -> certificate: reads, bounds, self-tests; the one call behind `POST /certify` and `lipcert certify`."""

from __future__ import annotations

import functools
import hashlib
import math
import operator
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from certifier.bounds.product import ProductBound
from certifier.box import Box
from certifier.calibration import Calibration, calibration_digest
from certifier.certificates import Constants
from certifier.choice import choose
from certifier.documents import (
    Certificate,
    CertifyOptions,
    LipschitzBound,
    MethodReport,
    ModelDescription,
    RungName,
    Task,
    TensorDescription,
)
from certifier.engine import Engine
from certifier.executing import arithmetic_of, description_of, engine_of
from certifier.executions import Execution
from certifier.flow import Network
from certifier.ladder import Climb, Wish, climb
from certifier.limits import Budget, Limits
from certifier.network import build_network, served_model
from certifier.norms import Norms
from certifier.packing import pack_constants
from certifier.parts import InputParts
from certifier.portable.writing import portable
from certifier.progress import SEARCH_BEGINS, SEARCH_ENDS, Report, Telling
from certifier.ranges import with_ranges
from certifier.search.attack import stretch_search
from certifier.search.hints import CarriedVectors
from certifier.search.state import Seal, SearchState
from certifier.selftest import Subject, probes_for, run_self_test
from certifier.serving import Decider
from certifier.tasks import notes_of, task_of, with_loose_pairs

INLINE_PAIRS = 64
SEARCH_SHARE = 2 / 3
"""Of the time for all of a certification; the rest is for proofs and tests."""
CALIBRATION_SHARE = 0.1
"""Of the time for tightening, for evaluating the calibration inputs."""
STRETCH_STEPS = (1e-3, 1e-2, 1e-1)
STRETCH_ITERATIONS = 12


@dataclass(frozen=True, kw_only=True)
class CertifiedModel:
    """A certificate with what serving needs: the graph that was bounded, its constants, and the search state."""

    certificate: Certificate
    served_model: bytes
    """The bounded graph, written as ONNX; what the engine runs."""
    constants: bytes
    """The proved constants as an npz archive without pickles; what `Predictor` reads."""
    portable: bytes
    """The certificate as one file that `verify` proves again."""
    state: SearchState
    """Vectors and sealed bounds to warm-start the next version of the model."""


def certify(
    data: bytes,
    *,
    name: str,
    version: int,
    options: CertifyOptions,
    limits: Limits,
    state: SearchState,
    seal: Seal,
    progress: Report,
    calibration: bytes | None = None,
    is_cancelled: Callable[[], bool] = lambda: False,
) -> CertifiedModel:
    """Certify an uploaded model.

    `calibration` is a `.npy` file of inputs, in the units of callers: the search favours the pairs of classes that they
    come near.  It decides where time is spent and nothing else.  Once `is_cancelled` the search ends with its next
    step, and what is proved by then is certified.
    Raises: any CertifierError; nothing is certified then.
    """
    started = time.monotonic()
    telling = Telling(progress)
    telling.stage("reading the model", 0.0)
    digest = calibration_digest(calibration, options.calibration)
    chosen = choose(data, options=options, limits=limits)
    graph = chosen.graph
    network = build_network(graph, limits=limits, cut_head=options.task != "regression")
    box = Box.of(options.input_box, InputParts.of(chosen.inputs))
    task, task_notes = task_of(network, options)
    calibrating, search_notes = None, list[str]()
    if calibration is not None:
        calibrating = Calibration.read(calibration, task=task, parts=InputParts.of(chosen.inputs), limits=limits)
        options = options.model_copy(update={"calibration": digest})
    served = served_model(network)
    engine = Engine(served, network.input)

    telling.stage("bounding the layers", 0.1)
    norms = Norms(
        state=state,
        seal=seal,
        carried=CarriedVectors(graph.constants),
        progress=lambda layer: telling.step(f"bounding layer {layer}"),
    )
    read, network = network, with_ranges(network, box, norms.norm_upper)
    bound = ProductBound(network, norms)
    seconds = min(options.seconds, max(SEARCH_SHARE * limits.seconds - (time.monotonic() - started), 0.0))
    telling.search("tightening", seconds)
    budget = Budget(seconds, is_cancelled=is_cancelled, on_look=telling.look)
    wish = Wish(method=options.method, budget=budget, classes=task == "classification", weights=None)
    if calibrating is not None and options.method != "product":
        telling.stage("calibrating", SEARCH_BEGINS)
        part = budget.part(CALIBRATION_SHARE * seconds)
        weights, note = calibrating.weights(engine.run, bound.constants().pairs, budget=part)
        wish = replace(wish, weights=weights)
        search_notes = [note]
    climbed = climb(
        network,
        bound,
        wish=wish,
        fresh_norms=lambda: Norms(state=SearchState(), seal=seal, carried=CarriedVectors({}), progress=_unreported),
        kept=state.multipliers,
        telling=telling,
    )
    search_notes += [rung.note for rung in climbed.rungs if rung.note is not None]
    search_notes += _ending(budget, limits, is_shortened=seconds < options.seconds)
    constants = climbed.constants
    if task == "classification" and constants.pairs is None:
        constants = with_loose_pairs(constants, network.output_size)
    gains = bound.gains()
    execution = Execution.of(options.arithmetic, network)
    derived = execution.drifts(network, gains, norms, norms.magnitude_upper)

    telling.stage("searching from below", SEARCH_ENDS)
    seed = int.from_bytes(hashlib.sha256(data).digest()[:8], "little")
    probes = probes_for(network, engine, box, seed=seed)
    lower = stretch_search(
        network, probes, gains, box=box, iterations=STRETCH_ITERATIONS, steps=STRETCH_STEPS, seed=seed
    )

    telling.stage("testing the result", 0.85)
    decider = Decider(task=task, constants=constants, threshold=options.threshold or 0.5)
    self_test = run_self_test(
        Subject(
            network=network,
            engine=engine,
            decider=decider,
            gains=gains,
            drifts=derived.drifts,
            is_evaluated=execution.is_evaluated,
            box=box,
            lower=lower,
            upper=constants.upper,
        ),
        probes,
    )
    # What was searched for is nobody's to prove again, so only these go into the file.
    proved_notes = notes_of(network, task_notes, box)
    certificate = Certificate(
        model=ModelDescription(
            name=name,
            version=version,
            sha256=hashlib.sha256(data).hexdigest(),
            format=chosen.format,
            inputs=list(chosen.inputs),
            fixed_inputs=list(chosen.fixed_inputs),
            outputs=[_describe_output(network)],
        ),
        task=task,
        classes=network.output_size,
        lipschitz=LipschitzBound(upper=constants.upper, lower=lower, method=_winner(climbed)),
        outputs=None if constants.outputs is None else [float(value) for value in constants.outputs],
        pairs=_inline_pairs(constants, task),
        methods=_method_reports(climbed),
        pair_methods=_pair_methods(climbed, constants, task),
        layers=norms.reports(),
        arithmetic=arithmetic_of(execution, derived.because),
        self_test=self_test,
        options=options,
        notes=[*proved_notes, *search_notes],
        engine=engine_of(execution),
        execution=description_of(execution),
        seconds=time.monotonic() - started,
    )
    needed = climbed.needed()
    document = portable(
        certificate,
        read,
        constants=constants,
        execution=execution,
        derived=derived,
        notes=proved_notes,
        # Drifts rest on norms of single terms too, which no method needs.
        norms=functools.reduce(operator.or_, [dict(rung.norms) for rung in needed], norms.leaves()),
        witnesses={rung.method: rung.witness for rung in needed if rung.witness is not None},
    )
    telling.stage("done", 1.0)
    return CertifiedModel(
        certificate=certificate,
        served_model=served,
        constants=pack_constants(constants, gains, derived.drifts),
        portable=document,
        state=norms.state(climbed.parameters),
    )


def _ending(budget: Budget, limits: Limits, *, is_shortened: bool) -> list[str]:
    """Why the search ended before the time that was asked for, in words."""
    if budget.is_cut:
        return ["search cancelled: the constants are the best that were proved by then"]
    if is_shortened and budget.left() <= 0:
        return [f"search shortened: a certification may take {limits.seconds:g} seconds, of which it gets two thirds"]
    return []


def _winner(climbed: Climb) -> RungName:
    """The first method that reached the constant of the whole network."""
    uppers = [math.inf if rung.constants is None else rung.constants.upper for rung in climbed.rungs]
    return climbed.rungs[int(np.argmin(uppers))].method


def _method_reports(climbed: Climb) -> list[MethodReport]:
    choice, reports = climbed.choice(), []
    for position, rung in enumerate(climbed.rungs):
        constants = rung.constants
        pairs = None if constants is None or constants.pairs is None or len(constants.pairs) < 2 else constants.pairs
        first, second = np.triu_indices(0 if pairs is None else len(pairs), 1)
        reports.append(
            MethodReport(
                method=rung.method,
                upper=None if constants is None or not math.isfinite(constants.upper) else constants.upper,
                mean_pair=None if pairs is None else float(pairs[first, second].mean()),
                pairs=None if pairs is None or choice is None else int((choice[first, second] == position).sum()),
                seconds=rung.seconds,
                reason=rung.reason,
            )
        )
    return reports


def _pair_methods(climbed: Climb, constants: Constants, task: Task) -> list[list[RungName]] | None:
    choice = climbed.choice()
    if choice is None or _inline_pairs(constants, task) is None:
        return None
    return [[climbed.rungs[position].method for position in row] for row in choice]


def _unreported(layer: str) -> None:
    """Norms of a transformed network are none of its layers'."""


def _inline_pairs(constants: Constants, task: Task) -> list[list[float]] | None:
    if task != "classification" or constants.pairs is None or len(constants.pairs) > INLINE_PAIRS:
        return None
    return constants.pairs.tolist()


def _describe_output(network: Network) -> TensorDescription:
    shape: list[int | None] = list(network.output_shape)
    if network.input.batch_axis and shape and shape[0] == 1:
        shape[0] = None
    return TensorDescription(name=network.output, dtype=network.input.dtype, shape=shape)
