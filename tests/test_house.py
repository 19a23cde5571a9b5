"""Rules of the house that no linter knows: what an import may load, how kernels are compiled, what is documented."""

import ast
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import theoryrl

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "theoryrl"
TESTS = ROOT / "tests"
HEAVY = ("numba", "scipy", "scipy.optimize", "pandas", "matplotlib", "gymnasium", "cvxpy", "flint", "rich", "typer")
DECISIONS = ("strict", "any-order")
COMPILERS = {"jit", "njit", "vectorize", "guvectorize", "cfunc", "stencil", "generated_jit"}


def packages() -> list[str]:
    """Every public package of the library, itself included."""
    found = ["theoryrl"]
    for module in pkgutil.walk_packages(theoryrl.__path__, "theoryrl."):
        if module.ispkg and not any(part.startswith("_") for part in module.name.split(".")):
            found.append(module.name)
    return found


# ---- imports


def test_import_loads_nothing_heavy():
    code = f"import sys, theoryrl; print(*[name for name in {HEAVY!r} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == []


def test_the_check_of_imports_sees_a_heavy_one():
    code = f"import sys, theoryrl, numba; print(*[name for name in {HEAVY!r} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "numba" in result.stdout.split()


# ---- sources


def _name(node: ast.AST) -> str:
    """Last part of a dotted name: `njit` of `numba.njit`."""
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _is_decision(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Call)
        and len(node.args) == 1
        and not node.keywords
        and isinstance(node.args[0], ast.Constant)
        and node.args[0].value in DECISIONS
    )


def _faults_of_imports(node: ast.Import | ast.ImportFrom) -> Iterator[str]:
    module = node.module or "" if isinstance(node, ast.ImportFrom) else ""
    for name in node.names:
        if "pickle" in (module or name.name).split("."):
            yield "pickle runs code from files"
        if module.split(".")[0] == "numba" and name.name in COMPILERS:
            yield f"{name.name} outside _jit.py: use kernel"


def _faults_of_calls(node: ast.Call) -> Iterator[str]:
    if isinstance(node.func, ast.Name) and node.func.id in ("eval", "exec", "print"):
        yield f"{node.func.id}()"
    for keyword in node.keywords:
        if keyword.arg == "fastmath":
            yield "fastmath outside _jit.py"
        if keyword.arg == "allow_pickle" and getattr(keyword.value, "value", None) is not False:
            yield "allow_pickle is not False"


def faults(tree: ast.AST) -> list[str]:
    """What breaks the rules for sources, one `line: fault` each."""
    found = []
    for node in ast.walk(tree):
        new: list[str] = []
        if isinstance(node, ast.Import | ast.ImportFrom):
            new += _faults_of_imports(node)
        elif isinstance(node, ast.Call):
            new += _faults_of_calls(node)
        elif isinstance(node, ast.Attribute) and _name(node.value) in ("numba", "nb") and node.attr in COMPILERS:
            new.append(f"{node.attr} outside _jit.py: use kernel")
        elif isinstance(node, ast.FunctionDef):
            for decorator in node.decorator_list:
                called = decorator.func if isinstance(decorator, ast.Call) else decorator
                if _name(called) == "kernel" and not _is_decision(decorator):
                    new.append(f"{node.name}: a kernel decides between {' and '.join(DECISIONS)}")
        found += [f"{node.lineno}: {fault}" for fault in new]
    return found


def test_sources_keep_the_rules():
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        if path == PACKAGE / "_jit.py":
            continue
        prints_allowed = "cli" in path.relative_to(PACKAGE).parts
        for fault in faults(ast.parse(path.read_text())):
            if not (prints_allowed and fault.endswith("print()")):
                found.append(f"{path.relative_to(ROOT)}:{fault}")
    assert found == []


@pytest.mark.parametrize(
    "source",
    [
        "from numba import njit",
        "import numba\n@numba.njit(cache=True)\ndef f(): pass",
        "import numba as nb\nf = nb.vectorize(g)",
        "@kernel\ndef f(): pass",
        "@kernel('fast')\ndef f(): pass",
        "@kernel(order)\ndef f(): pass",
        "@overload(f, jit_options=dict(fastmath=True))\ndef g(): pass",
        "import pickle",
        "from pickle import load",
        "np.load(path, allow_pickle=True)",
        "np.load(path, allow_pickle=flag)",
        "eval(text)",
        "exec(text)",
        "print(1)",
    ],
)
def test_the_rules_for_sources_bite(source):
    assert len(faults(ast.parse(source))) == 1


def test_a_kernel_with_its_decision_passes():
    kernels = "@kernel('strict')\ndef f(): pass\n\n@_jit.kernel('any-order')\ndef g(): pass"
    assert faults(ast.parse(kernels)) == []
    assert faults(ast.parse("np.load(path, allow_pickle=False)")) == []


# ---- documentation


def _documented(value: object) -> bool:
    text = (value.__doc__ or "").strip()
    # A dataclass without a docstring is given its signature for one.
    return bool(text) and not text.startswith(f"{getattr(value, '__name__', '')}(")


def undocumented(value: object, name: str) -> list[str]:
    """Names without a docstring: a function, or a class and the public methods and properties it defines."""
    if not (inspect.isroutine(value) or inspect.isclass(value)):
        return []
    found = [] if _documented(value) else [name]
    if inspect.isclass(value):
        for key, member in vars(value).items():
            inner = member.__func__ if isinstance(member, classmethod | staticmethod) else member
            if isinstance(inner, property) or inspect.isfunction(inner):
                if not key.startswith("_") and not (inner.__doc__ or "").strip():
                    found.append(f"{name}.{key}")
    return found


@pytest.mark.parametrize("package", packages())
def test_public_names_exist_and_are_documented(package):
    module = importlib.import_module(package)
    exported = getattr(module, "__all__", [])
    assert (module.__doc__ or "").strip(), f"{package} has no docstring"
    assert len(exported) == len(set(exported)), f"{package}.__all__ names something twice"
    found = [fault for name in exported for fault in undocumented(getattr(module, name), f"{package}.{name}")]
    assert found == []


def test_the_check_of_docstrings_bites():
    import dataclasses

    @dataclasses.dataclass
    class Bare:
        x: int

        def method(self):
            pass

    assert undocumented(Bare, "Bare") == ["Bare", "Bare.method"]
    assert undocumented(lambda: 0, "f") == ["f"]


def test_version_is_one():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert theoryrl.__version__ == version
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()
    assert re.search(rf"^## {re.escape(version)}\b", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)


# ---- tests


def asserts(function: ast.FunctionDef, helpers: frozenset[str] = frozenset()) -> bool:
    """Whether some statement of a test can fail on a wrong value, itself or through one of `helpers`."""
    for node in ast.walk(function):
        if isinstance(node, ast.Assert) and not isinstance(node.test, ast.Constant):
            return True
        if isinstance(node, ast.Call):
            name = _name(node.func)
            if name in helpers or re.search(r"assert|raises|warns|check|fail", name):
                return True
    return False


def test_every_test_asserts():
    found = []
    for path in sorted(TESTS.rglob("test_*.py")):
        functions = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)]
        tests = [function for function in functions if function.name.startswith("test")]
        helpers = frozenset(other.name for other in functions if other not in tests and asserts(other))
        found += [f"{path.relative_to(ROOT)}:{test.lineno} {test.name}" for test in tests if not asserts(test, helpers)]
    assert found == []


@pytest.mark.parametrize("body", ["f(1)", "assert True", "x = f() == 1"])
def test_the_check_of_tests_bites(body):
    assert not asserts(ast.parse(f"def test():\n    {body}").body[0], frozenset({"g"}))


def test_stub_offers_what_the_package_offers():
    tree = ast.parse((PACKAGE / "__init__.pyi").read_text())
    imported = {alias.name for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert imported == set(theoryrl.__all__)
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module != "theoryrl":
            module = importlib.import_module(node.module)
            for alias in node.names:
                assert getattr(module, alias.name) is getattr(theoryrl, alias.name)
