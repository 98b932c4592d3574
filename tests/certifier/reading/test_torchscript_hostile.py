"""Archives that nobody should open: each ends in a typed refusal, and none of their code is ever run."""

from __future__ import annotations

import io
import pickle
import struct
import sys
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from certifier.errors import CertifierError, MalformedModel, ResourceLimitExceeded, UnsupportedModel, UnsupportedNode
from certifier.limits import Limits
from certifier.reading.torchscript.reader import read_torchscript
from tests.certifier.reading.torchscript_making import (
    archived,
    changed,
    listing,
    members,
    read,
    scripted,
    traced,
)

SHAPE = (1, 4)
BASE = traced(nn.Sequential(nn.Linear(4, 4), nn.ReLU()), SHAPE)
ROOT = next(iter(members(BASE))).split("/")[0]
_HEAD = "class M(Module):\n  __parameters__ = []\n  __buffers__ = []\n"


def with_member(name: str, value: bytes) -> bytes:
    """The good archive with one more, or another, member."""
    return archived({**members(BASE), f"{ROOT}/{name}": value})


def program(body: str, *, more: str = "", state: bytes = b"") -> bytes:
    """An archive whose forward has the given body; `more` is further code of the file."""
    lines = "".join(f"    {line}\n" for line in body.splitlines())
    code = f"{_HEAD}  def forward(self: __torch__.M,\n    x: Tensor) -> Tensor:\n{lines}{more}"
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
ARCHIVES: dict[str, Callable[[], bytes]] = {
    "empty": lambda: b"",
    "only a signature": lambda: b"PK\x03\x04",
    "cut in half": lambda: BASE[: len(BASE) // 2],
    "without its directory": lambda: BASE[:-22],
    "an ordinary zip": lambda: archived({"a/b.txt": b"hello"}),
    "a member outside of the folder": lambda: archived({**members(BASE), "../evil": b""}),
    "a member that climbs": lambda: with_member("code/../../evil.py", b""),
    "an absolute member": lambda: archived({**members(BASE), "/etc/evil": b""}),
    "a member with backslashes": lambda: with_member("code\\evil.py", b""),
    "two folders": lambda: archived({**members(BASE), "other/data.pkl": b""}),
    "a symbolic link": with_link,
    "a member twice": lambda: twice("data.pkl"),
    "encrypted": encrypted,
    "compressed data": compressed,
    "members on top of one another": overlapping,
    "a source bomb": lambda: archived(
        {**members(BASE), **{name: b"#" * 2**25 for name in members(BASE) if name.endswith(".py")}},
        compression=zipfile.ZIP_DEFLATED,
    ),
    "sixty thousand members": lambda: BASE + b"PK\x01\x02" * 60_000,
    "a changed byte of a weight": lambda: BASE.replace(members(BASE)[f"{ROOT}/data/0"], bytes(64)),
    "an ordinary pickle": lambda: with_member("data.pkl", pickle.dumps(Planted(), protocol=2)),
    "a newer pickle": lambda: with_member("data.pkl", pickle.dumps({"a": [1, 2]}, protocol=4)),
    "a textual pickle": lambda: with_member("data.pkl", pickle.dumps(Planted(), protocol=0)),
    "a pickle of os.system": lambda: with_member("data.pkl", b"\x80\x02cposix\nsystem\nX\x02\x00\x00\x00id\x85R."),
    "a pickle of getattr": lambda: with_member("data.pkl", b"\x80\x02c__builtin__\ngetattr\n)R."),
    "an object of a foreign class": lambda: with_member("data.pkl", b"\x80\x02cos\nPathLike\n)\x81."),
    "an instance of a foreign class": lambda: with_member("data.pkl", b"\x80\x02(ios\nPathLike\n."),
    "a pickle without an end": lambda: with_member("data.pkl", b"\x80\x02" + b"]" * 1000),
    "a pickle that takes from nothing": lambda: with_member("data.pkl", b"\x80\x02R."),
    "a pickle of marks": lambda: with_member("data.pkl", b"\x80\x02" + b"(" * 100_000 + b"."),
    "a pickle of a huge text": lambda: with_member("data.pkl", b"\x80\x02X\xff\xff\xff\xff."),
    "a pickle of a huge memo": lambda: with_member("data.pkl", b"\x80\x02]r\xff\xff\xff\xff."),
    "a pickle of a huge integer": lambda: with_member("data.pkl", b"\x80\x02\x8a\xff" + b"\xff" * 255 + b"."),
    "a pickle of many opcodes": lambda: with_member("data.pkl", b"\x80\x02" + b"N" * 5_000_000 + b"."),
    "lists that double": lambda: program("l = self.l\nreturn torch.stack(l)", state=doubling_state(200)),
    "lists that double, compared": lambda: program(
        "if torch.eq(self.l, self.l):\n  pass\nelse:\n  pass\nreturn x", state=doubling_state(60)
    ),
    "lists that double, returned": lambda: program("return self.l", state=doubling_state(60)),
    "a list inside itself": lambda: program(
        "return torch.stack(self.l)",
        state=b"\x80\x02c__torch__\nM\n)\x81}X\x01\x00\x00\x00l]q\x00h\x00asb.",
    ),
    "a module inside itself": lambda: program(
        "return (self).forward(x, )", state=b"\x80\x02c__torch__\nM\n)\x81q\x00}X\x01\x00\x00\x00lh\x00sb."
    ),
    "a dictionary of exotic keys": lambda: with_member("data.pkl", b"\x80\x02}))s."),
    "a tensor outside of its storage": lambda: tensor_archive(bytes(16), tensor_state(4, (5,), (1,))),
    "a tensor that starts outside": lambda: tensor_archive(bytes(16), tensor_state(4, (1,), (1,), offset=4)),
    "a tensor of negative strides": lambda: tensor_archive(bytes(16), tensor_state(4, (4,), (-1,))),
    "a tensor of negative sizes": lambda: tensor_archive(bytes(16), tensor_state(4, (-4,), (1,))),
    "a tensor whose strides overflow": lambda: tensor_archive(bytes(16), tensor_state(4, (3,), (2**62,))),
    "a tensor blown up by a zero stride": lambda: tensor_archive(bytes(16), tensor_state(4, (2**40,), (0,))),
    "a tensor of too many axes": lambda: tensor_archive(bytes(16), tensor_state(4, (1,) * 70, (1,) * 70)),
    "a storage longer than its member": lambda: tensor_archive(bytes(8), tensor_state(4, (4,), (1,))),
    "a storage that says more than fits": lambda: tensor_archive(bytes(8), tensor_state(2**62, (4,), (1,))),
    "a storage of complex numbers": lambda: tensor_archive(
        bytes(32), tensor_state(4, (4,), (1,), kind="ComplexFloatStorage")
    ),
    "truth values other than 0 and 1": lambda: tensor_archive(
        b"\x02" * 4, tensor_state(4, (4,), (1,), kind="BoolStorage")
    ),
    "a big-endian archive": lambda: with_member("byteorder", b"big"),
    "a version of tomorrow": lambda: with_member("version", b"99999"),
    "a version of letters": lambda: with_member("version", b"\xc2\xb2"),
    "code that is no text": lambda: changed(BASE, lambda n, v: b"\xff\xfe" if n.endswith(".py") else v),
    "code with a zero byte": lambda: program("return \x00x"),
    "code that imports": lambda: program("import os\nreturn x"),
    "code that is nested": lambda: program("return " + "torch.relu(" * 150 + "x" + ")" * 150),
    "brackets inside brackets": lambda: program(f"return {NESTED}"),
    "a hundred thousand brackets": lambda: program("return " + "(" * 100_000),
    "a hundred thousand signs": lambda: program("return " + "-" * 100_000 + "1"),
    "a hundred thousand attributes": lambda: program("return x" + ".a" * 100_000),
    "a hundred thousand calls": lambda: program("return x" + "()" * 100_000),
    "a hundred thousand branches": lambda: program("if x:\n  pass\n" + "elif x:\n  pass\n" * 100_000),
    "deep indentation": lambda: program(
        "\n".join("  " * n + "if True:" for n in range(95)) + "\n" + "  " * 95 + "pass"
    ),
    "a number of a million digits": lambda: program("return " + "9" * 1_000_000),
    "a formatted string": lambda: program('return f"{x}"'),
    "a lambda": lambda: program("return lambda: x"),
    "a generator": lambda: program("return [y for y in x]"),
    "a Python operator": lambda: program("return ^Odd()(x)"),
    "an unknown function": lambda: program("return eval(x)"),
    "an unknown name": lambda: program("return __import__"),
    "an attribute of the interpreter": lambda: program("return x.__class__"),
    "an attribute of a function": lambda: program("return torch.relu.__globals__(x)"),
    "a file operator": lambda: program('torch.save(x, "evil")\nreturn x'),
    "a file read": lambda: program('return torch.from_file("/etc/passwd")'),
    "a custom operator": lambda: program("return ops.evil.run(x)"),
    "a constant that is not there": lambda: program("return torch.add(x, CONSTANTS.c0)"),
    "a constant of no number": lambda: program("return torch.add(x, CONSTANTS.c99999999999999999)"),
    "an endless recursion": lambda: program("return (self).forward(x, )"),
    "an endless loop": lambda: program("while True:\n  pass\nreturn x"),
    "a long loop": lambda: program("for i in range(9223372036854775807):\n  pass\nreturn x"),
    "loops inside loops": lambda: program(
        "\n".join("  " * n + f"for i{n} in range(1000):" for n in range(9)) + "\n" + "  " * 9 + "pass\nreturn x"
    ),
    "an integer that grows": lambda: program("y = 3\nfor i in range(1000):\n  y = torch.mul(y, y)\nreturn x"),
    "a power without end": lambda: program("y = torch.pow(9, 999999999)\nreturn x"),
    "a text that doubles": lambda: program('y = "ab"\nfor i in range(100):\n  y = torch.add(y, y)\nreturn x'),
    "a list that doubles": lambda: program("y = [1]\nfor i in range(100):\n  y = torch.add(y, y)\nreturn x"),
    "a list that multiplies": lambda: program("y = torch.mul([1], 999999999999)\nreturn x"),
    "a list extended by itself": lambda: program("y = [1]\nfor i in range(99):\n  torch.extend(y, y)\nreturn x"),
    "a tensor of a trillion ones": lambda: program("return torch.add(x, torch.ones([1000000, 1000000]))"),
    "a tensor expanded": lambda: program("return torch.expand(x, [1000000000000, 4])"),
    "a tensor repeated": lambda: program("return torch.repeat(x, [1000000, 1000000])"),
    "ever more nodes": lambda: program("for i in range(1000000):\n  x = torch.relu(x)\nreturn x"),
    "ever more constants": lambda: program(
        "y = torch.ones([1000])\nfor i in range(1000000):\n  y = torch.add(y, y)\nreturn torch.add(x, y)"
    ),
    "division by zero": lambda: program("y = torch.div(1, 0)\nreturn x"),
    "a step of zero": lambda: program("for i in range(0, 5, 0):\n  pass\nreturn x"),
    "a function that is not there": lambda: program("return __torch__.evil(x, )"),
    "a class that is not there": lambda: with_member("data.pkl", b"\x80\x02c__torch__.evil\nM\n)\x81}b."),
    "a class named like a path": lambda: with_member("data.pkl", b"\x80\x02c__torch__/../../etc\nM\n)\x81}b."),
    "a method twice": lambda: program("return x", more="  def forward(self, x):\n    return x\n"),
    "a class twice": lambda: program("return x", more=_HEAD),
    "statements outside of classes": lambda: program("return x", more="print(1)\n"),
    "starred parameters": lambda: archived(
        {
            **members(program("return x")),
            "m/code/__torch__.py": (_HEAD + "  def forward(self, **x):\n    return 1\n").encode(),
        }
    ),
    "nothing returned": lambda: program("pass"),
    "a number returned": lambda: program("return 1"),
    "the module returned": lambda: program("return self"),
    "an exception raised": lambda: program('ops.prim.RaiseException("no")\nreturn x'),
    "a setstate": lambda: program(
        "return x", more="  def __setstate__(self: __torch__.M,\n    s: int) -> NoneType:\n    pass\n"
    ),
    "a custom class": lambda: program(
        "return torch.add(x, self.o)",
        more="class P:\n  a : int\n",
        state=b"\x80\x02c__torch__\nM\n)\x81}X\x01\x00\x00\x00oc__torch__\nP\n)\x81}bsb.",
    ),
}


@pytest.mark.parametrize("name", ARCHIVES)
def test_hostile_archives_end_in_a_typed_refusal(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CertifierError) as caught:
        read(ARCHIVES[name](), SHAPE)
    assert str(caught.value) and not listing(tmp_path)


def test_the_archive_that_the_hostile_ones_are_made_of_is_read():
    assert read(BASE, SHAPE).outputs
    assert read(program("return torch.relu(x)"), SHAPE).outputs
    good = tensor_archive(bytes(16), tensor_state(4, (4,), (1,)))
    assert read(good, SHAPE).constants["w"].shape == (4,)


def hostile_state(folder: Path) -> bytes:
    """An archive whose module writes a file into `folder` while PyTorch loads it."""
    code = (
        _HEAD
        + "  training : bool\n  def forward(self: __torch__.M,\n    x: Tensor) -> Tensor:\n    return torch.mul(x, 2)\n"
        + "  def __getstate__(self: __torch__.M) -> Tuple[int, bool]:\n    return (1, True)\n"
        + "  def __setstate__(self: __torch__.M,\n    state: Tuple[int, bool]) -> NoneType:\n"
        + f'    torch.save(torch.ones([1]), "{folder}/written")\n    self.training = (state)[1]\n    return None\n'
    )
    state = b"\x80\x02c__torch__\nM\n)\x81K\x01\x88\x86b."
    return archived(
        {
            "m/data.pkl": state,
            "m/code/__torch__.py": code.encode(),
            "m/constants.pkl": b"\x80\x02).",
            "m/version": b"3\n",
        }
    )


def test_a_setstate_that_writes_a_file_changes_nothing(tmp_path: Path):
    data = hostile_state(tmp_path)
    with pytest.raises(CertifierError):
        read(data, SHAPE)
    assert not listing(tmp_path)
    # The same bytes do write when PyTorch loads them: the archive is a real one.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.load(io.BytesIO(data))
    assert listing(tmp_path) == {str(tmp_path / "written")}


def test_reading_imports_no_pytorch():
    import subprocess

    program = "import sys; from certifier.reading.torchscript import reader; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


@pytest.mark.parametrize("legacy", [True, False])
@pytest.mark.parametrize("whole", [True, False])
def test_state_dicts_and_pickled_modules_say_how_to_export(legacy: bool, whole: bool):
    model, buffer = nn.Linear(4, 4), io.BytesIO()
    torch.save(model if whole else model.state_dict(), buffer, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(UnsupportedModel, match=r"torch\.jit\.trace"):
        read(buffer.getvalue(), SHAPE)


def test_errors_name_their_kind():
    for name, kind in {
        "a Python operator": UnsupportedNode,
        "a file operator": UnsupportedNode,
        "a setstate": UnsupportedNode,
        "an endless loop": ResourceLimitExceeded,
        "ever more nodes": ResourceLimitExceeded,
        "lists that double": ResourceLimitExceeded,
        "a hundred thousand calls": ResourceLimitExceeded,
        "a symbolic link": MalformedModel,
        "a tensor outside of its storage": MalformedModel,
    }.items():
        with pytest.raises(kind):
            read(ARCHIVES[name](), SHAPE)


def test_the_limits_of_the_caller_are_kept():
    for limits in (Limits(model_bytes=100), Limits(elements=10), Limits(nodes=0), Limits(value_elements=3)):
        with pytest.raises(ResourceLimitExceeded):
            read_torchscript(BASE, limits=limits, input_shape=SHAPE)


def test_quantised_modules_are_refused():
    class Quantised(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.dequantize(torch.quantize_per_tensor(x, 0.1, 0, torch.quint8))

    with pytest.raises(UnsupportedNode, match=r"quantize_per_tensor"):
        read(scripted(Quantised()), SHAPE)
