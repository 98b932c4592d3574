"""Protobufs without a schema: fields cut out, doubled, swapped and overwritten, with their lengths kept right."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
_DEEPEST = 8
NUMBERS = (0, 1, 2, 3, 7, 13, 16, 21, 99, 2**31 - 1, 2**31, 2**32, 2**62, 2**63 - 1, 2**63, 2**64 - 1)


@dataclass
class Field:
    """One field: its number, its wire type, and its value: a number, bytes, or the fields of a message."""

    number: int
    kind: int
    value: int | bytes | list[Field]


def parsed(data: bytes, depth: int = 0) -> list[Field] | None:
    """The fields of a message, or None if `data` is none."""
    fields, at = [], 0
    while at < len(data):
        tag, at = _varint(data, at)
        kind, number = tag & 7, tag >> 3
        if at < 0 or number == 0:
            return None
        value: int | bytes | list[Field]
        if kind == VARINT:
            value, at = _varint(data, at)
            if at < 0:
                return None
        elif kind in (FIXED64, FIXED32):
            size = 8 if kind == FIXED64 else 4
            value, at = data[at : at + size], at + size
        elif kind == BYTES:
            size, at = _varint(data, at)
            if at < 0 or at + size > len(data):
                return None
            value, at = data[at : at + size], at + size
            inner = parsed(value, depth + 1) if value and depth < _DEEPEST else None
            value = value if inner is None else inner
        else:
            return None
        if at > len(data):
            return None
        fields.append(Field(number, kind, value))
    return fields


def written(fields: list[Field]) -> bytes:
    """The message of the fields."""
    pieces = []
    for field in fields:
        pieces.append(_as_varint(field.number << 3 | field.kind))
        if isinstance(field.value, int):
            pieces.append(_as_varint(field.value))
        else:
            content = written(field.value) if isinstance(field.value, list) else field.value
            if field.kind == BYTES:
                pieces.append(_as_varint(len(content)))
            pieces.append(content)
    return b"".join(pieces)


def mutated_message(data: bytes, random: Random) -> bytes:
    """`data` with one to four fields changed; unchanged if it is no message."""
    fields = parsed(data)
    if not fields:
        return data
    for _ in range(random.choice((1, 1, 2, 4))):
        _change(fields, random)
    return written(fields)


def _messages(fields: list[Field]) -> list[list[Field]]:
    found = [fields]
    for message in found:
        found.extend(field.value for field in message if isinstance(field.value, list))
    return found


def _change(fields: list[Field], random: Random) -> None:
    messages = [message for message in _messages(fields) if message]
    message = random.choice(messages)
    if not message:
        return
    place = random.randrange(len(message))
    field = message[place]
    match random.randrange(9):
        case 0:
            del message[place]
        case 1:
            message.insert(random.randrange(len(message) + 1), Field(field.number, field.kind, field.value))
        case 2:
            other = random.randrange(len(message))
            message[place], message[other] = message[other], field
        case 3:
            # The same kind of field from anywhere: strings become other names of the model, messages other messages.
            donors = [each for donor in messages for each in donor if type(each.value) is type(field.value)]
            donor = random.choice(donors)
            # A copy by way of bytes, so that no message ever holds itself.
            value = parsed(written(donor.value)) if isinstance(donor.value, list) else donor.value
            message[place] = Field(field.number, field.kind, b"" if value is None else value)
        case 4:
            message[place] = Field(random.choice((field.number + 1, 1, 2, 5, 9, 13, 14, 20)), field.kind, field.value)
        case 5:
            message.append(Field(random.choice((1, 2, 3, 5, 7, 8, 13)), VARINT, random.choice(NUMBERS)))
        case 6 if len(fields) < 4000:
            message.extend([Field(field.number, field.kind, field.value)] * random.choice((2, 30)))
        case _:
            message[place] = Field(field.number, field.kind, _other_value(field.value, random))


def _other_value(value: int | bytes | list[Field], random: Random) -> int | bytes | list[Field]:
    if isinstance(value, int):
        return random.choice((value ^ 1, value + 1, random.choice(NUMBERS)))
    if isinstance(value, list):
        return []
    at = random.randrange(len(value) + 1)
    return random.choice(
        (
            value[:at],
            value[:at] + random.randbytes(1) + value[at + 1 :],
            value + value,
            b"",
            random.randbytes(random.randrange(9)),
            b"\x00\x00\xc0\x7f" * (len(value) // 4),
            b"\x00\x00\x80\x7f" * (len(value) // 4),
            b"\x01\x00\x00\x00" * (len(value) // 4),
            b"\xff" * len(value),
            random.choice((b"Loop", b"If", b"Expand", b"Tile", b"Range", b"Pow", b"Reshape", b"Concat", b"Gather")),
        )
    )


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """The number and the place behind it, -1 if there is none."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            return 0, -1
        value |= (data[at] & 0x7F) << shift
        at += 1
        if not data[at - 1] & 0x80:
            return value, at
    return 0, -1


def _as_varint(value: int) -> bytes:
    value &= 2**64 - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
