"""Programs, JSON and pickles changed where their own readers look: by word, by member and by opcode."""

from __future__ import annotations

import copy
import json
import pickletools
import re
from random import Random
from typing import Any

WORDS = r"""torch ops prim CONSTANTS c0 self x forward relu add linear view size cat append annotate range while for if
in return getattr int None True inf nan ( ) [ ] { } , . : = - -1 0 1 3 1000000000000 9223372036854775807
18446744073709551616 1e400 "a" "\ud800" weight bias training __torch__ slice select reshape copy_ relu_ expand ones
stack chunk repeat arange pow mul floordiv remainder save from_file eval lambda yield import _setitem permute transpose
unsqueeze flatten conv2d _convolution batch_norm max_pool2d avg_pool2d adaptive_avg_pool2d softmax matmul bmm""".split()
_TOKEN = re.compile(r"\s+|\w+|[^\w\s]")
OTHERS: tuple[object, ...] = (
    None, True, False, -1, 0, 1, 2, 3, 7, 2**31, 2**62, 2**63, 2**70, 1.5, 1e308, float("inf"), float("nan"), "",
    "Infinity", "../x", "\ud800", "x" * 5000, (), [[]], {"as_int": 5}, {"as_int": -(2**63)}, {"as_none": []},
    {"as_ints": [2**40, 2**40]}, {"as_float": "NaN"}, [{"as_tensor": {"name": "x"}}], {"as_graph": {}},
)  # fmt: skip
TARGETS = """add.Tensor mul.Tensor div.Tensor sub.Tensor matmul.default mm.default bmm.default relu.default
relu_.default add_.Tensor view.default reshape.default expand.default repeat.default permute.default transpose.int
slice.Tensor select.int cat.default stack.default ones.default full.default arange.default linear.default
conv2d.default convolution.default batch_norm.default max_pool2d.default avg_pool2d.default mean.dim sum.dim_IntList
softmax.int layer_norm.default pow.Tensor_Scalar constant_pad_nd.default pad.default upsample_nearest2d.vec
index.Tensor embedding.default clone.default detach.default to.dtype chunk.default split.Tensor unbind.int
squeeze.dim unsqueeze.default flatten.using_ints clamp.default where.self gelu.default einsum.default""".split()


def mutated_program(data: bytes, random: Random) -> bytes:
    """TorchScript code with words or lines replaced, removed, doubled or swapped."""
    text = data.decode("utf-8", errors="surrogateescape")
    by_line = random.random() < 0.3
    parts = text.splitlines(keepends=True) if by_line else _TOKEN.findall(text)
    for _ in range(random.choice((1, 1, 2, 3, 6))):
        if not parts:
            break
        place = random.randrange(len(parts))
        match random.randrange(8):
            case 0:
                del parts[place : place + random.choice((1, 1, 2, 5))]
            case 1:
                parts[place:place] = parts[place : place + random.choice((1, 2, 8))]
            case 2:
                other = random.randrange(len(parts))
                parts[place], parts[other] = parts[other], parts[place]
            case _ if not by_line and random.random() < 0.6:
                parts[place] = _alike(parts, place, random)
            case 3 if not by_line and random.random() < 0.05:
                parts[place] = random.choice(("(", "[", "-", ".a", "()")) * random.choice((50, 300, 20_000))
            case _:
                parts[place] = random.choice(WORDS) if not by_line else f"    {random.choice(WORDS)}\n"
    return "".join(parts).encode("utf-8", errors="surrogateescape")


def _alike(parts: list[str], place: int, random: Random) -> str:
    """Put a number for a number or a name for a name near `place`, so that the text still parses."""
    found = next((each for each in range(place, min(place + 6, len(parts))) if parts[each][:1].isalnum()), place)
    known = [word for word in (*WORDS, *parts[:2000]) if word[:1].isdigit() == parts[found][:1].isdigit()]
    parts[found] = random.choice([word for word in known if word[:1].isalnum()] or [parts[found]])
    return parts[place]


def mutated_json(data: bytes, random: Random) -> bytes:
    """JSON with parts replaced by others, removed or doubled; sometimes text that JSON does not allow."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return data
    if isinstance(value, (dict, list)):
        for _ in range(random.choice((1, 1, 1, 2, 4))):
            _change(value, random)
    text = json.dumps(value)
    if random.random() < 0.03:
        at = random.randrange(len(text) + 1)
        piece = random.choice(('"a":1,"a":2,', "[" * 2000, "9" * 5000, "NaN", "\\ud800", "\x00"))
        text = text[:at] + piece + text[at:]
    return text.encode()


def _change(root: dict[str, Any] | list[Any], random: Random) -> None:
    """Replace, remove or double one part of `root`, every part as likely as any other."""
    places: list[tuple[Any, Any]] = []
    pending: list[Any] = [root]
    while pending:
        owner = pending.pop()
        for key in owner if isinstance(owner, dict) else range(len(owner)):
            places.append((owner, key))
            if isinstance(owner[key], (dict, list)):
                pending.append(owner[key])
    if not places:
        return
    owner, key = random.choice(places)
    if random.random() < 0.1:
        del owner[key]
    elif isinstance(owner, list) and random.random() < 0.2:
        owner.insert(random.randrange(len(owner) + 1), copy.deepcopy(owner[key]))
    else:
        owner[key] = _other(owner[key], places, random)


def _other(value: object, places: list[tuple[Any, Any]], random: Random) -> object:
    """Something in place of `value`: often of its kind, so that it is looked at and not only refused."""
    if isinstance(value, str) and value.startswith("torch.ops.") and random.random() < 0.8:
        return f"torch.ops.aten.{random.choice(TARGETS)}"
    if isinstance(value, int) and random.random() < 0.5:
        return random.choice((value + 1, value - 1, -value, 2 * value, value * 1000))
    if random.random() < 0.5:
        alike = [owner[key] for owner, key in places if type(owner[key]) is type(value)]
        return copy.deepcopy(random.choice(alike))
    return copy.deepcopy(random.choice(OTHERS))


def mutated_pickle(data: bytes, random: Random) -> bytes:
    """A pickle with opcodes removed, doubled, swapped or replaced."""
    try:
        places = [place for _, _, place in pickletools.genops(data) if place is not None]
    except ValueError:
        return data
    ends = [*places[1:], len(data)]
    pieces = [data[start:stop] for start, stop in zip(places, ends, strict=True)]
    for _ in range(random.choice((1, 1, 2, 4))):
        place = random.randrange(len(pieces))
        match random.randrange(5):
            case 0:
                del pieces[place]
            case 1:
                pieces.insert(random.randrange(len(pieces) + 1), pieces[place])
            case 2:
                other = random.randrange(len(pieces))
                pieces[place], pieces[other] = pieces[other], pieces[place]
            case 3:
                pieces[place] = pieces[random.randrange(len(pieces))]
            case _:
                pieces[place] = random.choice(_PIECES)
        if not pieces:
            break
    return b"".join(pieces)


_PIECES = (
    b"cposix\nsystem\n", b"c__builtin__\neval\n", b"c__torch__\nM\n", b"R", b"b", b"\x81", b"Q", b"(", b"t", b"u", b"e",
    b"N", b"]", b"}", b")", b"h\x00", b"q\xff", b"r\xff\xff\xff\xff", b"j\xff\xff\xff\xff", b"X\xff\xff\xff\x7fa",
    b"\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f", b"\x8a\xffaa", b"K\x03", b"J\xff\xff\xff\xff", b"G\x7f\xf8" + bytes(6),
    b".", b"\x95\xff\xff\xff\xff\xff\xff\xff\x7f", b"\x88", b"X\x01\x00\x00\x00w", b"X\x02\x00\x00\x00\xff\xfe",
)  # fmt: skip
