"""TorchScript archives that nobody should open.

Longer than other files, since one table of attacks is easier to read than its parts.
"""

from __future__ import annotations

import io
import pickle
import struct
import warnings
import zipfile

from torch import nn

from tests.certifier.reading.torchscript_making import archived, changed, members, traced
from tests.hostile.case import Case

SHAPE = (1, 4)
BASE = traced(nn.Sequential(nn.Linear(4, 4), nn.ReLU()), SHAPE)
ROOT = next(iter(members(BASE))).split("/")[0]
HEAD = "class M(Module):\n  __parameters__ = []\n  __buffers__ = []\n"


def with_member(name: str, value: bytes) -> bytes:
    """The good archive with one more, or another, member."""
    return archived({**members(BASE), f"{ROOT}/{name}": value})


def program(body: str, *, more: str = "", state: bytes = b"") -> bytes:
    """An archive whose forward has the given body; `more` is further code of the file."""
    lines = "".join(f"    {line}\n" for line in body.splitlines())
    code = f"{HEAD}  def forward(self: __torch__.M,\n    x: Tensor) -> Tensor:\n{lines}{more}"
    saved_state = state or b"\x80\x02c__torch__\nM\n)\x81}b."
    return archived(
        {
            "m/data.pkl": saved_state,
            "m/code/__torch__.py": code.encode(),
            "m/constants.pkl": b"\x80\x02).",
            "m/version": b"3\n",
        }
    )


def tensor_state(
    count: int, shape: tuple[int, ...], strides: tuple[int, ...], *, offset: int = 0, kind: str = "FloatStorage"
) -> bytes:
    """A pickle of a module with one tensor `w` of the given description."""

    def number(value: int) -> bytes:
        return b"\x8a\x08" + struct.pack("<q", value)

    def text(value: str) -> bytes:
        return b"X" + struct.pack("<I", len(value)) + value.encode()

    def group(values: tuple[int, ...]) -> bytes:
        return b"(" + b"".join(map(number, values)) + b"t"

    storage = b"(" + text("storage") + f"ctorch\n{kind}\n".encode() + text("0") + text("cpu") + number(count) + b"tQ"
    view = storage + number(offset) + group(shape) + group(strides) + b"\x89ccollections\nOrderedDict\n)R"
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\n(" + view + b"tR"
    return b"\x80\x02c__torch__\nM\n)\x81}" + text("w") + tensor + b"sb."


def tensor_archive(blob: bytes, state: bytes) -> bytes:
    """An archive whose forward adds the tensor `w`."""
    content = members(program("w = self.w\nreturn torch.add(x, w)", state=state))
    return archived({**content, "m/data/0": blob})


def encrypted() -> bytes:
    data = bytearray(BASE)
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = data.index(signature)
        data[at + offset] |= 1
    return bytes(data)


def with_link() -> bytes:
    buffer = io.BytesIO(BASE)
    with zipfile.ZipFile(buffer, "a") as archive:
        link = zipfile.ZipInfo(f"{ROOT}/data/9")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    return buffer.getvalue()


def twice(name: str) -> bytes:
    buffer = io.BytesIO(BASE)
    with zipfile.ZipFile(buffer, "a") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        archive.writestr(f"{ROOT}/{name}", b"\x80\x02N.")
    return buffer.getvalue()


def compressed() -> bytes:
    return archived(members(BASE), compression=zipfile.ZIP_DEFLATED)


def overlapping() -> bytes:
    """A central directory that lists one stored member a hundred times."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("m/data.pkl", b"\0" * 4096)
    data = buffer.getvalue()
    at = data.index(b"PK\x01\x02")
    end = data.index(b"PK\x05\x06")
    entry = data[at:end]
    entries = b"".join(entry.replace(b"m/data.pkl", f"m/data.{n:03d}".encode()) for n in range(100))
    return data[:at] + entries + struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 100, 100, len(entries), at, 0)


def doubling(levels: int) -> bytes:
    """Pickled lists in which every list holds the one before twice."""
    body = b"]q\x00"
    for level in range(levels):
        body = b"](" + body + b"h" + bytes([level]) + b"eq" + bytes([level + 1])
    return body


def doubling_state(levels: int) -> bytes:
    """A pickle of a module whose attribute `l` is a list of 2**levels lists, told in a few bytes."""
    return b"\x80\x02c__torch__\nM\n)\x81}X\x01\x00\x00\x00l" + doubling(levels) + b"sb."


class Planted:
    """What an ordinary pickle would run."""

    def __reduce__(self) -> tuple[object, ...]:
        return (print, ("run",))


NESTED = "(" * 150 + "x" + ")" * 150
CASES: dict[str, Case] = {
    "empty": Case("unknown_format", lambda: b""),
    "only a signature": Case("malformed_model", lambda: b"PK\x03\x04"),
    "cut in half": Case("malformed_model", lambda: BASE[: len(BASE) // 2]),
    "without its directory": Case("malformed_model", lambda: BASE[:-22]),
    "an ordinary zip": Case("unknown_format", lambda: archived({"a/b.txt": b"hello"})),
    "a member outside of the folder": Case("malformed_model", lambda: archived({**members(BASE), "../evil": b""})),
    "a member that climbs": Case("malformed_model", lambda: with_member("code/../../evil.py", b"")),
    "an absolute member": Case("malformed_model", lambda: archived({**members(BASE), "/etc/evil": b""})),
    "a member with backslashes": Case("malformed_model", lambda: with_member("code\\evil.py", b"")),
    "two folders": Case("malformed_model", lambda: archived({**members(BASE), "other/data.pkl": b""})),
    "a symbolic link": Case("malformed_model", with_link),
    "a member twice": Case("malformed_model", lambda: twice("data.pkl")),
    "encrypted": Case("malformed_model", encrypted),
    "compressed data": Case("malformed_model", compressed),
    "members on top of one another": Case("unknown_format", overlapping),
    "a source bomb": Case(
        "malformed_model",
        lambda: archived(
            {**members(BASE), **{name: b"#" * 2**25 for name in members(BASE) if name.endswith(".py")}},
            compression=zipfile.ZIP_DEFLATED,
        ),
    ),
    "sixty thousand members": Case("malformed_model", lambda: BASE + b"PK\x01\x02" * 60_000),
    "a changed byte of a weight": Case(
        "malformed_model", lambda: BASE.replace(members(BASE)[f"{ROOT}/data/0"], bytes(64))
    ),
    "an ordinary pickle": Case(
        "unsupported_model", lambda: with_member("data.pkl", pickle.dumps(Planted(), protocol=2))
    ),
    "a newer pickle": Case(
        "unsupported_model", lambda: with_member("data.pkl", pickle.dumps({"a": [1, 2]}, protocol=4))
    ),
    "a textual pickle": Case("unsupported_model", lambda: with_member("data.pkl", pickle.dumps(Planted(), protocol=0))),
    "a pickle of os.system": Case(
        "unsupported_model", lambda: with_member("data.pkl", b"\x80\x02cposix\nsystem\nX\x02\x00\x00\x00id\x85R.")
    ),
    "a pickle of getattr": Case(
        "unsupported_model", lambda: with_member("data.pkl", b"\x80\x02c__builtin__\ngetattr\n)R.")
    ),
    "an object of a foreign class": Case(
        "unsupported_model", lambda: with_member("data.pkl", b"\x80\x02cos\nPathLike\n)\x81.")
    ),
    "an instance of a foreign class": Case(
        "unsupported_model", lambda: with_member("data.pkl", b"\x80\x02(ios\nPathLike\n.")
    ),
    "a pickle without an end": Case("malformed_model", lambda: with_member("data.pkl", b"\x80\x02" + b"]" * 1000)),
    "a pickle that takes from nothing": Case("malformed_model", lambda: with_member("data.pkl", b"\x80\x02R.")),
    "a pickle of marks": Case(
        "unsupported_model", lambda: with_member("data.pkl", b"\x80\x02" + b"(" * 100_000 + b".")
    ),
    "a pickle of a huge text": Case("malformed_model", lambda: with_member("data.pkl", b"\x80\x02X\xff\xff\xff\xff.")),
    "a pickle of a huge memo": Case(
        "unsupported_model", lambda: with_member("data.pkl", b"\x80\x02]r\xff\xff\xff\xff.")
    ),
    "a pickle of a huge integer": Case(
        "malformed_model", lambda: with_member("data.pkl", b"\x80\x02\x8a\xff" + b"\xff" * 255 + b".")
    ),
    "a pickle of many opcodes": Case(
        "resource_limit_exceeded", lambda: with_member("data.pkl", b"\x80\x02" + b"N" * 5_000_000 + b".")
    ),
    "lists that double": Case(
        "resource_limit_exceeded", lambda: program("l = self.l\nreturn torch.stack(l)", state=doubling_state(200))
    ),
    "lists that double, compared": Case(
        "unsupported_node",
        lambda: program("if torch.eq(self.l, self.l):\n  pass\nelse:\n  pass\nreturn x", state=doubling_state(60)),
    ),
    "lists that double, returned": Case(
        "resource_limit_exceeded", lambda: program("return self.l", state=doubling_state(60))
    ),
    "a list inside itself": Case(
        "resource_limit_exceeded",
        lambda: program(
            "return torch.stack(self.l)",
            state=b"\x80\x02c__torch__\nM\n)\x81}X\x01\x00\x00\x00l]q\x00h\x00asb.",
        ),
    ),
    "a module inside itself": Case(
        "resource_limit_exceeded",
        lambda: program(
            "return (self).forward(x, )", state=b"\x80\x02c__torch__\nM\n)\x81q\x00}X\x01\x00\x00\x00lh\x00sb."
        ),
    ),
    "a dictionary of exotic keys": Case("unsupported_model", lambda: with_member("data.pkl", b"\x80\x02}))s.")),
    "a tensor outside of its storage": Case(
        "malformed_model", lambda: tensor_archive(bytes(16), tensor_state(4, (5,), (1,)))
    ),
    "a tensor that starts outside": Case(
        "malformed_model", lambda: tensor_archive(bytes(16), tensor_state(4, (1,), (1,), offset=4))
    ),
    "a tensor of negative strides": Case(
        "malformed_model", lambda: tensor_archive(bytes(16), tensor_state(4, (4,), (-1,)))
    ),
    "a tensor of negative sizes": Case(
        "malformed_model", lambda: tensor_archive(bytes(16), tensor_state(4, (-4,), (1,)))
    ),
    "a tensor whose strides overflow": Case(
        "malformed_model", lambda: tensor_archive(bytes(16), tensor_state(4, (3,), (2**62,)))
    ),
    "a tensor blown up by a zero stride": Case(
        "resource_limit_exceeded", lambda: tensor_archive(bytes(16), tensor_state(4, (2**40,), (0,)))
    ),
    "a tensor of too many axes": Case(
        "malformed_model", lambda: tensor_archive(bytes(16), tensor_state(4, (1,) * 70, (1,) * 70))
    ),
    "a storage longer than its member": Case(
        "malformed_model", lambda: tensor_archive(bytes(8), tensor_state(4, (4,), (1,)))
    ),
    "a storage that says more than fits": Case(
        "resource_limit_exceeded", lambda: tensor_archive(bytes(8), tensor_state(2**62, (4,), (1,)))
    ),
    "a storage of complex numbers": Case(
        "unsupported_model", lambda: tensor_archive(bytes(32), tensor_state(4, (4,), (1,), kind="ComplexFloatStorage"))
    ),
    "truth values other than 0 and 1": Case(
        "malformed_model", lambda: tensor_archive(b"\x02" * 4, tensor_state(4, (4,), (1,), kind="BoolStorage"))
    ),
    "a big-endian archive": Case("unsupported_model", lambda: with_member("byteorder", b"big")),
    "a version of tomorrow": Case("unsupported_model", lambda: with_member("version", b"99999")),
    "a version of letters": Case("malformed_model", lambda: with_member("version", b"\xc2\xb2")),
    "code that is no text": Case(
        "malformed_model", lambda: changed(BASE, lambda n, v: b"\xff\xfe" if n.endswith(".py") else v)
    ),
    "code with a zero byte": Case("unsupported_node", lambda: program("return \x00x")),
    "code that imports": Case("unsupported_node", lambda: program("import os\nreturn x")),
    "code that is nested": Case(
        "resource_limit_exceeded", lambda: program("return " + "torch.relu(" * 150 + "x" + ")" * 150)
    ),
    "brackets inside brackets": Case("resource_limit_exceeded", lambda: program(f"return {NESTED}")),
    "a hundred thousand brackets": Case("resource_limit_exceeded", lambda: program("return " + "(" * 100_000)),
    "a hundred thousand signs": Case("unsupported_node", lambda: program("return " + "-" * 100_000 + "1")),
    "a hundred thousand attributes": Case("resource_limit_exceeded", lambda: program("return x" + ".a" * 100_000)),
    "a hundred thousand calls": Case("resource_limit_exceeded", lambda: program("return x" + "()" * 100_000)),
    "a hundred thousand branches": Case(
        "unsupported_node", lambda: program("if x:\n  pass\n" + "elif x:\n  pass\n" * 100_000)
    ),
    "deep indentation": Case(
        "unsupported_node",
        lambda: program("\n".join("  " * n + "if True:" for n in range(95)) + "\n" + "  " * 95 + "pass"),
    ),
    "a number of a million digits": Case("malformed_model", lambda: program("return " + "9" * 1_000_000)),
    "a formatted string": Case("unsupported_node", lambda: program('return f"{x}"')),
    "half a character": Case("unsupported_node", lambda: program('return torch.relu(x, "\\ud800")')),
    "half a character for an attribute": Case("unsupported_node", lambda: program('return getattr(self, "\\ud800")')),
    "half a character for an exception": Case(
        "unsupported_node", lambda: program('ops.prim.RaiseException("\\ud800")\nreturn x')
    ),
    "a lambda": Case("unsupported_node", lambda: program("return lambda: x")),
    "a generator": Case("unsupported_node", lambda: program("return [y for y in x]")),
    "a Python operator": Case("unsupported_node", lambda: program("return ^Odd()(x)")),
    "an unknown function": Case("unsupported_node", lambda: program("return eval(x)")),
    "an unknown name": Case("malformed_model", lambda: program("return __import__")),
    "an attribute of the interpreter": Case("unsupported_node", lambda: program("return x.__class__")),
    "an attribute of a function": Case("unsupported_node", lambda: program("return torch.relu.__globals__(x)")),
    "a file operator": Case("unsupported_node", lambda: program('torch.save(x, "evil")\nreturn x')),
    "a file read": Case("unsupported_node", lambda: program('return torch.from_file("/etc/passwd")')),
    "a custom operator": Case("unsupported_node", lambda: program("return ops.evil.run(x)")),
    "a constant that is not there": Case("malformed_model", lambda: program("return torch.add(x, CONSTANTS.c0)")),
    "a constant of no number": Case(
        "malformed_model", lambda: program("return torch.add(x, CONSTANTS.c99999999999999999)")
    ),
    "an endless recursion": Case("resource_limit_exceeded", lambda: program("return (self).forward(x, )")),
    "an endless loop": Case("resource_limit_exceeded", lambda: program("while True:\n  pass\nreturn x")),
    "a long loop": Case(
        "resource_limit_exceeded", lambda: program("for i in range(9223372036854775807):\n  pass\nreturn x")
    ),
    "loops inside loops": Case(
        "resource_limit_exceeded",
        lambda: program(
            "\n".join("  " * n + f"for i{n} in range(1000):" for n in range(9)) + "\n" + "  " * 9 + "pass\nreturn x"
        ),
    ),
    "an integer that grows": Case(
        "unsupported_node", lambda: program("y = 3\nfor i in range(1000):\n  y = torch.mul(y, y)\nreturn x")
    ),
    "a power without end": Case("unsupported_node", lambda: program("y = torch.pow(9, 999999999)\nreturn x")),
    "a text that doubles": Case(
        "resource_limit_exceeded", lambda: program('y = "ab"\nfor i in range(100):\n  y = torch.add(y, y)\nreturn x')
    ),
    "a list that doubles": Case(
        "resource_limit_exceeded", lambda: program("y = [1]\nfor i in range(100):\n  y = torch.add(y, y)\nreturn x")
    ),
    "a list that multiplies": Case(
        "resource_limit_exceeded", lambda: program("y = torch.mul([1], 999999999999)\nreturn x")
    ),
    "a list extended by itself": Case(
        "resource_limit_exceeded", lambda: program("y = [1]\nfor i in range(99):\n  torch.extend(y, y)\nreturn x")
    ),
    "a tensor of a trillion ones": Case(
        "resource_limit_exceeded", lambda: program("return torch.add(x, torch.ones([1000000, 1000000]))")
    ),
    "a tensor expanded": Case("resource_limit_exceeded", lambda: program("return torch.expand(x, [1000000000000, 4])")),
    "a tensor repeated": Case("resource_limit_exceeded", lambda: program("return torch.repeat(x, [1000000, 1000000])")),
    "ever more nodes": Case(
        "resource_limit_exceeded", lambda: program("for i in range(1000000):\n  x = torch.relu(x)\nreturn x")
    ),
    "ever more constants": Case(
        "resource_limit_exceeded",
        lambda: program(
            "y = torch.ones([1000])\nfor i in range(1000000):\n  y = torch.add(y, y)\nreturn torch.add(x, y)"
        ),
    ),
    "division by zero": Case("unsupported_node", lambda: program("y = torch.div(1, 0)\nreturn x")),
    "a step of zero": Case("unsupported_node", lambda: program("for i in range(0, 5, 0):\n  pass\nreturn x")),
    "a function that is not there": Case("malformed_model", lambda: program("return __torch__.evil(x, )")),
    "a class that is not there": Case(
        "malformed_model", lambda: with_member("data.pkl", b"\x80\x02c__torch__.evil\nM\n)\x81}b.")
    ),
    "a class named like a path": Case(
        "unsupported_model", lambda: with_member("data.pkl", b"\x80\x02c__torch__/../../etc\nM\n)\x81}b.")
    ),
    "a method twice": Case(
        "malformed_model", lambda: program("return x", more="  def forward(self, x):\n    return x\n")
    ),
    "a class twice": Case("malformed_model", lambda: program("return x", more=HEAD)),
    "statements outside of classes": Case("malformed_model", lambda: program("return x", more="print(1)\n")),
    "starred parameters": Case(
        "unsupported_node",
        lambda: archived(
            {
                **members(program("return x")),
                "m/code/__torch__.py": (HEAD + "  def forward(self, **x):\n    return 1\n").encode(),
            }
        ),
    ),
    "nothing returned": Case("unsupported_node", lambda: program("pass")),
    "a number returned": Case("unsupported_node", lambda: program("return 1")),
    "the module returned": Case("unsupported_node", lambda: program("return self")),
    "an exception raised": Case("unsupported_node", lambda: program('ops.prim.RaiseException("no")\nreturn x')),
    "a setstate": Case(
        "unsupported_node",
        lambda: program("return x", more="  def __setstate__(self: __torch__.M,\n    s: int) -> NoneType:\n    pass\n"),
    ),
    "a custom class": Case(
        "unsupported_node",
        lambda: program(
            "return torch.add(x, self.o)",
            more="class P:\n  a : int\n",
            state=b"\x80\x02c__torch__\nM\n)\x81}X\x01\x00\x00\x00oc__torch__\nP\n)\x81}bsb.",
        ),
    ),
}
