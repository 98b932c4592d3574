"""The house as drawn: contracts, public names, decisions, lock, image and documents agree with the code."""

from __future__ import annotations

import ast
import importlib
import io
import re
import subprocess
import sys
import tokenize
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from certifier.executions import ENGINE_ASSUMPTIONS, REAL_ASSUMPTIONS
from tests.faults.__main__ import FAULTS

PROJECT = Path(__file__).resolve().parent.parent
PACKAGES = ("certifier", "service")
LONGEST_FILE = 300
ADR_SECTIONS = ("Context", "Decision", "Consequences", "Enforced by")
UNFINISHED = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X)\b|for" + r" now\b")


def sources(*folders: str) -> list[Path]:
    """Every Python file below `folders`."""
    return sorted(path for folder in folders for path in (PROJECT / folder).rglob("*.py"))


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), filename=str(path))


def imported_roots(tree: ast.Module) -> set[str]:
    """First parts of every name that is imported anywhere, inside functions too."""
    roots: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            roots |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            roots.add(node.module.partition(".")[0])
    return roots


def importers_of(root: str) -> set[str]:
    return {str(path.relative_to(PROJECT)) for path in sources(*PACKAGES) if root in imported_roots(parsed(path))}


def code() -> Iterator[tuple[str, ast.Module]]:
    for path in sources(*PACKAGES):
        yield str(path.relative_to(PROJECT)), parsed(path)


def test_there_is_code_to_look_at() -> None:
    assert all(len(sources(package)) > 10 for package in PACKAGES)


def test_import_contracts_hold() -> None:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    contracts = tomllib.loads((PROJECT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    assert f"Contracts: {len(contracts)} kept, 0 broken." in done.stdout


def test_only_reading_imports_onnx() -> None:
    importers = importers_of("onnx")
    assert importers and all(path.startswith("certifier/reading/") for path in importers), importers


def test_only_the_engine_imports_onnxruntime() -> None:
    assert importers_of("onnxruntime") == {"certifier/engine.py"}


def test_the_library_starts_without_server_engine_or_training_framework() -> None:
    unwanted = ("torch", "fastapi", "uvicorn", "sqlalchemy", "sklearn")
    program = f"import sys, certifier; print(*(name for name in {unwanted} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], cwd=PROJECT, capture_output=True, text=True)
    assert (done.returncode, done.stdout.split()) == (0, []), done.stderr


@pytest.mark.parametrize("package", PACKAGES)
def test_public_names_resolve_and_are_documented(package: str) -> None:
    module = importlib.import_module(package)
    assert module.__doc__
    for name in getattr(module, "__all__", []):
        value = getattr(module, name)
        assert not callable(value) or value.__doc__, name


def test_the_library_has_public_names() -> None:
    assert importlib.import_module("certifier").__all__


def test_public_functions_and_classes_state_their_claim() -> None:
    silent = [
        f"{path}: {node.name}"
        for path, tree in code()
        if path.startswith("certifier/")
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
        if not ast.get_docstring(node)
    ]
    assert not silent


def test_no_function_takes_whatever_it_is_given() -> None:
    # Its signature, which it makes from the fields of groups of options, says what it takes, and is held to it.
    strict = "service/commandline/groups.py"
    loose = [
        f"{path}:{node.lineno}"
        for path, tree in code()
        if not str(path).endswith(strict)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.args.kwarg is not None
    ]
    assert not loose


def test_a_long_file_says_why() -> None:
    for path in sources(*PACKAGES):
        lines = path.read_text().count("\n")
        if lines > LONGEST_FILE:
            assert "lines" in (ast.get_docstring(parsed(path)) or ""), f"{path}: {lines} lines and no reason"


def test_nothing_is_left_for_later() -> None:
    texts = [*sources(*PACKAGES, "tests", "benchmarks", "examples", "deploy"), *PROJECT.glob("docs/**/*.md")]
    assert not [str(path) for path in texts if UNFINISHED.search(path.read_text())]


@pytest.mark.parametrize("page", sorted((PROJECT / "docs/adr").glob("*.md")), ids=lambda page: page.stem)
def test_a_decision_names_what_enforces_it(page: Path) -> None:
    text = page.read_text()
    assert re.match(rf"# {page.stem[:4]}: \S", text)
    assert re.search(r"^Status: (accepted|replaced by \d{4})$", text, re.MULTILINE)
    assert tuple(re.findall(r"^## (.+)$", text, re.MULTILINE)) == ADR_SECTIONS
    enforcers = re.findall(r"`([\w./-]+)`", text.partition("## Enforced by")[2])
    files = [name for name in enforcers if "/" in name or (PROJECT / name).exists()]
    assert files and all((PROJECT / name).is_file() for name in files), enforcers


def test_decisions_are_numbered_without_gaps() -> None:
    numbers = [int(page.name[:4]) for page in sorted((PROJECT / "docs/adr").glob("*.md"))]
    assert numbers == list(range(1, len(numbers) + 1))


def test_every_dependency_is_pinned_inside_its_range() -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    lines = (PROJECT / "requirements.lock").read_text().splitlines()
    locked: dict[str, str] = {}
    for line in lines[1:]:
        pin = re.fullmatch(r"([\w.-]+)==([\w.!]+)", line)
        assert pin, f"not a plain pin, but an address, a hash or a build label: {line}"
        locked[canonicalize_name(pin[1])] = pin[2]
    wanted = [Requirement(text) for text in project["dependencies"] + project["optional-dependencies"]["dev"]]
    assert len(wanted) > 20
    for requirement in wanted:
        version = locked[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), f"{requirement} is pinned to {version}"


def test_what_the_code_imports_is_declared() -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    declared = {canonicalize_name(Requirement(text).name) for text in project["dependencies"]}
    imported = {root for _, tree in code() for root in imported_roots(tree)}
    foreign = imported - set(sys.stdlib_module_names) - set(PACKAGES)
    # The one distribution whose import has another name.
    assert foreign and {canonicalize_name({"google": "protobuf"}.get(root, root)) for root in foreign} <= declared


def test_the_image_is_staged_unprivileged_and_checked() -> None:
    text = (PROJECT / "Dockerfile").read_text()
    instructions = re.sub(r"^#.*\n", "", text, flags=re.MULTILINE)
    assert len(re.findall(r"^FROM ", instructions, re.MULTILINE)) == 2
    assert re.search(r"^USER [1-9]\d*:[1-9]\d*$", instructions, re.MULTILINE)
    assert "ORT_DISABLE_TELEMETRY=1" in instructions
    # What builders other than Docker's own do not understand.
    assert "<<" not in instructions and "--link" not in instructions
    compose = (PROJECT / "docker-compose.yml").read_text()
    for line in ("read_only: true", "cap_drop: [ALL]", 'security_opt: ["no-new-privileges:true"]'):
        assert line in compose
    (check,) = re.findall(r"^HEALTHCHECK .*\\\n +CMD (\[.*\])$", instructions, re.MULTILINE)
    assert f'test: ["CMD", {check[1:]}' in compose


def documents() -> str:
    return "\n".join(path.read_text() for path in [PROJECT / "README.md", *PROJECT.glob("docs/*.md")])


def test_every_setting_is_documented() -> None:
    from service.settings import Settings

    text = documents()
    assert Settings.model_fields
    for name, field in Settings.model_fields.items():
        default = "unset" if field.default is None else f"`{field.default}`"
        assert field.description, name
        assert f"| `LIPCERT_{name.upper()}` | {default} | {field.description} |" in text, name


def test_every_endpoint_is_documented() -> None:
    from service.app import create_app
    from service.settings import Settings

    text = documents()
    paths = create_app(Settings()).openapi()["paths"]
    assert len(paths) >= 8
    for path, operations in paths.items():
        for method, operation in operations.items():
            assert operation.get("summary") and operation.get("description"), f"{method} {path}"
            assert f"`{method.upper()} {path}`" in text, f"{method} {path}"


def lines_of_code(path: Path) -> int:
    """Lines that hold code: no comments, blank lines or docstrings."""
    source = path.read_text()
    held: set[int] = set()
    silent = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in silent:
            held.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            held -= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return len(held)


def test_what_every_bound_by_multipliers_rests_on_stays_small() -> None:
    """`docs/certificates.md` promises it: the inequalities and the primitive that they are proved with."""
    trusted = ("rounding", "gram", "semidefinite", "multipliers")
    assert sum(lines_of_code(PROJECT / f"certifier/proof/{name}.py") for name in trusted) < 600


def test_what_every_drift_rests_on_stays_small() -> None:
    """`docs/certificates.md` promises that too: how errors pass from term to term, and what they come to."""
    trusted = ("drifts", "drifting", "following", "magnitudes", "forms")
    assert sum(lines_of_code(PROJECT / f"certifier/proof/{name}.py") for name in trusted) < 600


def test_a_certificate_names_assumptions_that_exist() -> None:
    text = (PROJECT / "docs/assumptions.md").read_text()
    for assumption in (*REAL_ASSUMPTIONS, *ENGINE_ASSUMPTIONS):
        number, _, statement = assumption.partition(": ")
        assert f"## {number}. {statement[0].upper()}{statement[1:]}\n" in text


def test_every_seeded_fault_has_its_place():
    """A fault whose line has moved would be seeded nowhere, and its tests would seem to be checked."""
    stale = [fault.name for fault in FAULTS if fault.old not in (PROJECT / fault.file).read_text()]
    tests = {test.partition("::")[0] for fault in FAULTS for test in fault.tests}
    assert not stale
    assert not [test for test in tests if not (PROJECT / test).exists()]
