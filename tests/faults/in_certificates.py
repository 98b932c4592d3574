"""Faults in certificate files: what a forger could use if the verifier looked away."""

from __future__ import annotations

from tests.faults.fault import Fault

VERIFICATION = "tests/certifier/portable/test_verification.py"
HOSTILE = "tests/certifier/portable/test_hostile_documents.py"
ENVELOPE = "tests/certifier/portable/test_envelope.py"

FAULTS = (
    Fault(
        name="claimed norms are believed",
        file="certifier/portable/claims.py",
        old="        if not _holds(proof, claimed):",
        new="        if False:",
        tests=(VERIFICATION,),
    ),
    Fault(
        name="a claim is tried with more than it says",
        file="certifier/portable/claims.py",
        old="        if proof.norm_upper_from_mu(mu) <= claimed:",
        new="        mu *= 1.01\n        if True:",
        tests=(VERIFICATION,),
    ),
    Fault(
        name="stated constants may lie below the proved ones",
        file="certifier/portable/evidence.py",
        old="        if not (known <= claimed).all():",
        new="        if not (known <= claimed * (1 + 1e-3)).all():",
        tests=(VERIFICATION,),
    ),
    Fault(
        name="stated constants may be any above the proved ones",
        file="certifier/portable/evidence.py",
        old="        if not (claimed <= mul_upper(known, TOO_MUCH_ROOM)).all():",
        new="        if False:",
        tests=(VERIFICATION,),
    ),
    Fault(
        name="the model's digest is not compared",
        file="certifier/verification.py",
        old="    if digest != certificate.model.sha256:",
        new="    if False:",
        tests=(VERIFICATION,),
    ),
    Fault(
        name="the terms are not compared",
        file="certifier/verification.py",
        old="        if known != term:",
        new="        if False:",
        tests=(VERIFICATION,),
    ),
    Fault(
        name="the task is taken from the document",
        file="certifier/verification.py",
        old="    if (certificate.task, certificate.classes) != (task, network.output_size):",
        new="    if False:",
        tests=(VERIFICATION,),
    ),
    Fault(
        name="a term's digest leaves its weights out",
        file="certifier/portable/structure.py",
        old="[term.arrangement, [operator.digest for operator in term.operators]]",
        new="[term.arrangement]",
        tests=(VERIFICATION,),
    ),
    Fault(
        name="the digest of the document is not compared",
        file="certifier/portable/document.py",
        old="    if digest != _digest(text, tensors) or data != _packed(text, tensors):",
        new="    if False:",
        tests=(VERIFICATION,),
    ),
    Fault(
        name="the tensors are outside of the digest",
        file="certifier/portable/document.py",
        old="    for name in sorted(tensors):\n        array",
        new="    for name in sorted(tensors)[:0]:\n        array",
        tests=(VERIFICATION,),
    ),
    Fault(
        name="claims are read however they are written",
        file="certifier/portable/document.py",
        old="    if certificate.model_dump_json() != text:",
        new="    if False:",
        tests=(HOSTILE,),
    ),
    Fault(
        name="whatever is nested deeply ends in a crash",
        file="certifier/portable/untrusted.py",
        old="    except RecursionError:",
        new="    except KeyError:",
        tests=(HOSTILE,),
    ),
    Fault(
        name="a witness may have any number of families",
        file="certifier/bounds/multipliers.py",
        old="    if len(families) > MAXIMAL_FAMILIES:",
        new="    if False:",
        tests=(HOSTILE,),
    ),
    Fault(
        name="a verification never ends",
        file="certifier/limits.py",
        old="        if time.monotonic() - self._started > self._limits.seconds:",
        new="        if False:",
        tests=(HOSTILE,),
    ),
    Fault(
        name="a document's words are believed",
        file="certifier/verification.py",
        old="    if (certificate.arithmetic, certificate.assumptions, certificate.notes) != words:",
        new="    if False:",
        tests=(HOSTILE,),
    ),
    Fault(
        name="a signature of any key will do",
        file="certifier/portable/envelope.py",
        old="    except InvalidSignature:\n        return False",
        new="    except InvalidSignature:\n        return True",
        tests=(ENVELOPE,),
    ),
    Fault(
        name="an unsigned certificate passes where a key is given",
        file="certifier/verification.py",
        old="    elif keys:",
        new="    elif False:",
        tests=(ENVELOPE,),
    ),
    Fault(
        name="the media type is not signed",
        file="certifier/portable/envelope.py",
        old="    kind = MEDIA_TYPE.encode()\n",
        new='    kind = b""\n',
        tests=(ENVELOPE,),
    ),
)
