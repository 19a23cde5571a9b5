import importlib
import subprocess
import sys

import pytest

import theoryrl
from theoryrl.theory import Control, ExactObservations, Proof, Theorem, UnknownTheorem, get, theorems
from theoryrl.theory.registry import _registry, collect

CONCENTRATION = [
    "concentration.hoeffding",
    "concentration.bernstein",
    "concentration.weissman",
    "concentration.azuma",
    "pigeonhole.visits",
]


def protocol(model, *, rng, runs, jobs, progress):
    return ExactObservations([0.0], [1.0])


def theorem(key):
    return Theorem(
        key=key,
        family="test",
        title="t",
        statement="s",
        source="s",
        claim="exact",
        protocol=protocol,
        controls=(Control("c", "s", protocol),),
        proof=Proof("cited", "a"),
        expected="verified",
    )


def test_families_and_keys():
    assert [entry.key for entry in theorems("concentration")] == CONCENTRATION
    assert set(CONCENTRATION) <= {entry.key for entry in theorems()}
    assert get("pigeonhole.visits").key == "pigeonhole.visits"


@pytest.mark.parametrize("typo", ["concentration.hoefding", "hoeffding", "Concentration.Hoeffding"])
def test_an_unknown_key_suggests_the_closest(typo):
    with pytest.raises(KeyError) as caught:
        get(typo)
    assert isinstance(caught.value, UnknownTheorem)
    assert str(caught.value) == f"no theorem {typo!r}; did you mean 'concentration.hoeffding'?"


def test_an_unknown_name_far_from_all_lists_what_there_is():
    with pytest.raises(UnknownTheorem, match=r"no family 'zzz'; known: .*concentration") as caught:
        theorems("zzz")
    assert "\n" not in str(caught.value)


def test_duplicates_and_strangers_are_refused():
    with pytest.raises(ValueError, match=r"a\.b is registered by one and again by two"):
        collect([("one", [theorem("a.b")]), ("two", [theorem("a.b")])])
    with pytest.raises(TypeError, match=r"one\.THEOREMS holds a str"):
        collect([("one", ["a.b"])])
    assert list(collect([("one", [theorem("a.b")]), ("two", [theorem("a.c")])])) == ["a.b", "a.c"]


@pytest.fixture
def rooms(tmp_path, monkeypatch):
    """Two rooms more: one with theorems, one without, which must not be imported."""
    (tmp_path / "attic").mkdir()
    (tmp_path / "attic" / "__init__.py").write_text("")
    (tmp_path / "attic" / "theorems.py").write_text(
        "import dataclasses\nfrom theoryrl.theory import get, theorems\n"
        "from theoryrl.theory.pigeonhole import THEOREMS as OLD\n"
        "THEOREMS = (dataclasses.replace(OLD[0], key='attic.visits', family='attic'),)\n"
    )
    (tmp_path / "cellar").mkdir()
    (tmp_path / "cellar" / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.setattr(theoryrl, "__path__", [*theoryrl.__path__, str(tmp_path)])
    importlib.invalidate_caches()
    _registry.cache_clear()
    yield
    for name in ("theoryrl.attic", "theoryrl.attic.theorems"):
        sys.modules.pop(name, None)
    vars(theoryrl).pop("attic", None)
    _registry.cache_clear()


@pytest.mark.usefixtures("rooms")
def test_rooms_are_found_on_disk():
    assert [entry.key for entry in theorems("attic")] == ["attic.visits"]
    assert "theoryrl.cellar" not in sys.modules


@pytest.mark.parametrize(
    "imports",
    [
        "import theoryrl.theory.theorems, theoryrl.theory.verify",
        "from theoryrl.theory.verify import verify_many; import theoryrl.theory.registry",
        "import theoryrl; theoryrl.theorems()",
    ],
)
def test_functions_win_over_submodules_of_the_same_name(imports):
    code = f"{imports}; import theoryrl.theory as t; print(callable(t.verify), callable(t.theorems), len(t.theorems()))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["True", "True", str(len(theorems()))]


def test_importing_the_room_loads_nothing_heavy():
    code = (
        "import sys, theoryrl.theory as t; t.verify, t.Theorem, t.clopper_pearson, t.Report\n"
        "print(*[m for m in ('scipy', 'numba', 'pandas', 'matplotlib') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == []
