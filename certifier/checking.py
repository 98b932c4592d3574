"""bytes -> what `certify` would refuse of a model, all of it at once, and which operators it is made of.

The same reading, walk, heads and ranges as for a certificate, with every refusal collected in the order in which
certifying comes to it, so that the first is the one that `certify` raises.  No layer is bounded, and nothing is
searched, tested or kept; only norms that ranges need are proved.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from certifier.box import Box
from certifier.calibration import Calibration, calibration_digest
from certifier.certification import task_of
from certifier.choice import Choice, choose
from certifier.documents import CertifyOptions, ModelCheck, OperatorUse, Refusal
from certifier.engine import Engine
from certifier.errors import CertifierError, UnsupportedNode
from certifier.flow import Network
from certifier.graph import Node
from certifier.limits import Limits
from certifier.network import Survey, needed_nodes, served_model, survey
from certifier.norms import Norms
from certifier.parts import InputParts
from certifier.patterns import with_composites
from certifier.ranges import resolve
from certifier.reading.census import census
from certifier.reading.folding import FOLDABLE
from certifier.rules import registry
from certifier.search.hints import CarriedVectors
from certifier.search.state import Seal, SearchState
from certifier.walk import key_of


def check(data: bytes, *, options: CertifyOptions, limits: Limits, calibration: bytes | None = None) -> ModelCheck:
    """What stands in the way of a certificate of these bytes with these options, as far as it can be told beforehand.

    `calibration` is the file of inputs that would be given beside the model.

    Without refusals, certifying can still fail in its self-test, or because a bound takes more than the limits allow.
    """
    found = _Findings()
    with found.collecting():
        calibration_digest(calibration, options.calibration)
    with found.collecting():
        found.choice = choose(data, options=options, limits=limits)
    if found.choice is None:
        shape = None if options.input_shape is None else tuple(options.input_shape)
        found.nodes, more = census(data, limits=limits, input_shape=shape)
        found.refusals += [each for each in more if str(each) not in {str(known) for known in found.refusals}]
    else:
        found.nodes = tuple(needed_nodes(found.choice.read.nodes, found.choice.read.outputs))
        with found.collecting():
            found.survey = survey(found.choice.graph, limits=limits, cut_head=options.task != "regression")
        if found.survey is not None:
            found.refusals += found.survey.refusals
            _check_network(found, found.choice, found.survey, options)
            _check_calibration(found, options, limits, calibration)
    return ModelCheck(
        sha256=hashlib.sha256(data).hexdigest(),
        format=None if found.choice is None else found.choice.format,
        inputs=[] if found.choice is None else list(found.choice.inputs),
        fixed_inputs=[] if found.choice is None else list(found.choice.fixed_inputs),
        outputs=[] if found.choice is None else list(found.choice.read.outputs),
        refusals=[_described(each) for each in found.refusals],
        operators=_operators(found),
        notes=list(found.notes),
    )


class _Findings:
    """What a check has come to know so far."""

    def __init__(self) -> None:
        self.choice: Choice | None = None
        self.survey: Survey | None = None
        self.nodes: tuple[Node, ...] = ()
        self.refusals: list[CertifierError] = []
        self.notes: Sequence[str] = ()

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """Keep what is refused inside instead of raising it."""
        try:
            yield
        except CertifierError as error:
            self.refusals.append(error)


def _check_network(found: _Findings, choice: Choice, known: Survey, options: CertifyOptions) -> None:
    network = known.network
    box = Box.everything(InputParts.of(choice.inputs).size)
    with found.collecting():
        box = Box.of(options.input_box, InputParts.of(choice.inputs))
    if network is None:
        network = _known_part(known)
    else:
        found.notes = network.notes
        with found.collecting():
            task_of(network, options)
        with found.collecting():
            Engine(served_model(network), network.input)
    if network is None:
        return
    norms = Norms(
        state=SearchState(),
        seal=Seal(secrets.token_bytes(32)),
        carried=CarriedVectors(choice.graph.constants),
        progress=lambda layer: None,
    )
    with found.collecting():
        found.refusals += resolve(network, box, norms.norm_upper).refusals


def _check_calibration(found: _Findings, options: CertifyOptions, limits: Limits, calibration: bytes | None) -> None:
    if calibration is None or found.choice is None or found.survey is None or found.survey.network is None:
        return
    try:
        task, _ = task_of(found.survey.network, options)
    except CertifierError:
        return  # told already
    with found.collecting():
        Calibration.read(calibration, task=task, parts=InputParts.of(found.choice.inputs), limits=limits)


def _known_part(known: Survey) -> Network | None:
    """All that has terms of a graph that is refused, so that their ranges are looked at too."""
    walk = known.walk
    if not walk.terms:
        return None
    terms = tuple(with_composites(tuple(walk.terms), walk.source))
    return Network(
        input=walk.source,
        output=terms[-1].output,
        output_shape=terms[-1].shape,
        terms=terms,
        served=walk.graph,
        head=None,
        joined=False,
        notes=(),
    )


def _operators(found: _Findings) -> list[OperatorUse]:
    """How often each operator occurs, in the order of the alphabet."""
    refused = {(each.node, each.operator) for each in found.refusals if isinstance(each, UnsupportedNode)}
    how = {} if found.survey is None else dict(found.survey.walk.how)
    if found.survey is not None:
        how |= {key_of(node): "cut" for node in found.survey.cut}
    uses: dict[tuple[str, str], list[tuple[bool, bool]]] = {}
    for node in found.nodes:
        is_refused = (node.name, node.operator) in refused
        done = how.get(key_of(node), "skipped") if node.outputs else "skipped"
        supported = not is_refused and (done not in ("skipped", "refused") or _has_rule(node, read=bool(how)))
        uses.setdefault((node.operator, node.domain or "ai.onnx"), []).append((supported, is_refused))
    return [
        OperatorUse(
            operator=operator,
            domain=domain,
            count=len(nodes),
            supported=all(supported for supported, _ in nodes),
            refused=sum(is_refused for _, is_refused in nodes),
        )
        for (operator, domain), nodes in sorted(uses.items())
    ]


def _has_rule(node: Node, *, read: bool) -> bool:
    """Whether a node that nobody came to has a rule, or none is needed as far as is known of what it reads."""
    if node.domain != "":
        return node.domain == "aten"
    try:
        registry.find(node)
    except UnsupportedNode:
        return node.operator in FOLDABLE and not (read and node.operator in registry.REFUSED)
    return True


def _described(error: CertifierError) -> Refusal:
    details = error.details()
    texts = {name: str(details[name]) for name in ("node", "operator", "reason", "field") if details.get(name)}
    return Refusal(code=error.code, message=str(error), remedy=error.remedy, **texts)
