"""One mutation of an upload, at the depth where a reader looks: bytes, members, fields, words, opcodes."""

from __future__ import annotations

import io
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from tests.fuzzing.protobufs import mutated_message
from tests.fuzzing.texts import mutated_json, mutated_pickle, mutated_program
from tests.hostile.guard import Upload

Mutator = Callable[[bytes, Random], bytes]
_SEARCHED = 0.05
"""The share of mutants certified by every method: searching takes most of the time, reading most of the risk."""
_ZIP = b"PK\x03\x04"
_NAMES = ("../x", "/x", "data.pkl", "model.onnx", "a\\b", "code/__torch__.py", "archive/archive_format", "x" * 300, "")


@dataclass(frozen=True, kw_only=True)
class Seed:
    """A model that is certified as it stands."""

    form: str
    """The family that counts are kept by: onnx, bundle, torchscript, torch.export."""
    data: bytes
    input_shape: tuple[int, ...] | None


def mutant(models: tuple[Seed, ...], seed: int, number: int) -> Upload:
    """Mutant `number` of the campaign called `seed`."""
    random = Random(f"{seed}:{number}")
    model = models[number % len(models)]
    data = mutated(model.data, random)
    return Upload(data=data, input_shape=model.input_shape, method="auto" if random.random() < _SEARCHED else "product")


def mutated(data: bytes, random: Random) -> bytes:
    """`data`, damaged; the same for the same state of `random`."""
    if random.random() < 0.1:
        return mutated_bytes(data, random)
    if not data.startswith(_ZIP):
        return mutated_message(data, random)
    return _mutated_archive(data, random)


def mutated_bytes(data: bytes, random: Random) -> bytes:
    """Bytes overwritten, inserted, removed or moved; sometimes cut short."""
    changed = bytearray(data)
    for _ in range(random.choice((1, 1, 2, 4, 8))):
        at = random.randrange(len(changed) + 1)
        size = random.choice((1, 1, 2, 4, 8, 64))
        match random.randrange(7):
            case 0:
                del changed[at : at + size]
            case 1:
                changed[at:at] = random.randbytes(size)
            case 2:
                source = random.randrange(len(changed) + 1)
                changed[at : at + size] = changed[source : source + size]
            case 3:
                changed[at : at + size] = random.choice((b"\xff", b"\x00", b"\x7f", b"\x80")) * size
            case 4 if random.random() < 0.2:
                del changed[at:]
            case 5 if at < len(changed):
                changed[at] ^= 1 << random.randrange(8)
            case _:
                changed[at : at + size] = random.randbytes(size)
    return bytes(changed)


def _mutated_archive(data: bytes, random: Random) -> bytes:
    """The archive with right checksums around changed members, so that the change reaches their readers."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = [(name, archive.read(name)) for name in archive.namelist()]
    for _ in range(random.choice((1, 1, 1, 2))):
        if not members:
            break
        (place,) = random.choices(range(len(members)), [_worth(name, content) for name, content in members])
        name, content = members[place]
        match random.random():
            case chance if chance < 0.9:
                members[place] = (name, _mutator(name)(content, random))
            case chance if chance < 0.92:
                del members[place]
            case chance if chance < 0.94:
                members.append((name, content))
            case chance if chance < 0.96:
                members[place] = (name.rsplit("/", 1)[0] + "/" + random.choice(_NAMES), content)
            case _:
                members[place] = (name, members[random.randrange(len(members))][1])
    buffer = io.BytesIO()
    method = zipfile.ZIP_DEFLATED if random.random() < 0.03 else zipfile.ZIP_STORED
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w", method) as archive:
        warnings.simplefilter("ignore")  # names that are there twice are wanted
        for name, content in members:
            # A fixed date, so that a mutant is the same whenever it is made.
            entry = zipfile.ZipInfo(name or "x", (1980, 1, 1, 0, 0, 0))
            entry.compress_type = method
            archive.writestr(entry, content)
    return buffer.getvalue()


def _worth(name: str, content: bytes) -> float:
    """How much there is to find: most in code and structure, little in weights and in pickles."""
    by_kind: dict[Mutator, float] = {mutated_bytes: 0.02, mutated_pickle: 0.3}
    return by_kind.get(_mutator(name), 1.0) * min(50 + len(content), 4000)


def _mutator(name: str) -> Mutator:
    if name.endswith(".onnx"):
        return mutated_message
    if name.endswith(".json"):
        return mutated_json
    if name.endswith(".py"):
        return mutated_program
    if name.endswith(".pkl"):
        return mutated_pickle
    return mutated_bytes
