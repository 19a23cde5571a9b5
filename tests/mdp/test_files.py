import io
import json
import os
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from theoryrl.mdp import DiscountedMDP, FiniteHorizonMDP, SparseTransition, load, save
from theoryrl.mdp.files import load_any
from theoryrl.mdp.writing import write_whole


@st.composite
def models(draw):
    """Small random models of every kind, storage, law and setting."""
    s, a, h = draw(st.integers(1, 4)), draw(st.integers(1, 3)), draw(st.integers(1, 3))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    discounted = draw(st.booleans())
    staged = not discounted and draw(st.booleans())
    lead = (h,) if staged else ()
    weights = rng.random((*lead, s, a, s)) * (rng.random((*lead, s, a, s)) < 0.7)
    weights[..., 0] += 0.1
    transition = weights / weights.sum(axis=-1, keepdims=True)
    mask = rng.random((s, a)) < 0.7
    mask[:, 0] = True
    transition[..., ~mask, :] = rng.choice([0.0, np.nan, 7.0])  # never read, kept as given
    law = draw(st.sampled_from(["deterministic", "bernoulli", "uniform", "outcome"]))
    kind = {"reward": rng.random((*lead, s, a)), "reward_law": law}
    if law == "outcome":
        kind = {"outcome_reward": rng.normal(size=transition.shape)}
    if law == "uniform":
        kind["reward_noise"] = rng.random((*lead, s, a))
    common = dict(
        initial=rng.dirichlet(np.ones(s)),
        action_mask=mask,
        state_labels=[f"état {i}" for i in range(s)] if draw(st.booleans()) else None,
        action_labels=[f"a{i}" for i in range(a)] if draw(st.booleans()) else None,
        reward_range=(-20.0, 20.5) if draw(st.booleans()) else None,
        name=draw(st.sampled_from(["", "a model", "λ"])),
    )
    mdp = (
        DiscountedMDP(transition, **kind, **common, discount=0.9)
        if discounted
        else FiniteHorizonMDP(transition, **kind, **common, horizon=h)
    )
    return mdp.to_sparse() if draw(st.booleans()) and not np.isnan(transition).any() else mdp


def bits(mdp):
    arrays = mdp._arrays()
    return {name: (a.dtype.str, a.shape, a.tobytes()) for name, a in arrays.items() if a is not None}


@given(mdp=models())
def test_there_and_back(tmp_path_factory, mdp):
    path = tmp_path_factory.mktemp("files") / "model.npz"
    save(mdp, path)
    back = load(path)
    assert type(back) is type(mdp)
    assert bits(back) == bits(mdp)
    assert back._settings() == mdp._settings()
    assert (back.name, back.digest()) == (mdp.name, mdp.digest())
    holds_nan = np.isnan(mdp.to_dense().transition).any()  # which equals nothing, itself included
    assert holds_nan or back == mdp
    again = path.with_name("again.npz")
    save(back, again)
    assert again.read_bytes() == path.read_bytes()
    assert sorted(os.listdir(path.parent)) == ["again.npz", "model.npz"]
    for array in back._arrays().values():
        assert array is None or not array.flags.writeable


def test_means_keep_the_bits_of_the_storage_they_come_from(tmp_path):
    rng = np.random.default_rng(1)
    for seed in range(20):
        rng = np.random.default_rng(seed)
        transition = rng.dirichlet(np.ones(9), size=(9, 3))
        mdp = FiniteHorizonMDP(transition, outcome_reward=rng.normal(size=(9, 3, 9)), horizon=4).to_sparse()
        save(mdp, tmp_path / "model.npz")
        assert load(tmp_path / "model.npz") == mdp


@pytest.fixture
def small():
    transition = SparseTransition.from_entries([0, 0, 1], [0, 0, 0], [0, 1, 1], [0.25, 0.75, 1.0], 2, 1)
    return FiniteHorizonMDP(transition, outcome_reward=[1.0, 2.0, 0.0], horizon=3, name="small")


@pytest.fixture
def written(small, tmp_path):
    path = tmp_path / "small.npz"
    save(small, path)
    return path


def refused(path, message=None):
    with pytest.raises(ValueError, match=message) as caught:
        load(path)
    text = str(caught.value)
    assert text.startswith(str(path))
    assert "\n" not in text


def test_every_truncation_is_refused(written):
    content = written.read_bytes()
    for length in range(len(content)):
        written.write_bytes(content[:length])
        refused(written)


def test_a_changed_byte_is_noticed_or_means_nothing(written, small):
    content = written.read_bytes()
    noticed, lines = 0, set()
    for place in range(len(content)):
        for change in (0xFF, 0x01):
            changed = bytearray(content)
            changed[place] ^= change
            written.write_bytes(changed)
            try:
                back = load(written)
            except ValueError as error:
                noticed += 1
                lines.add(str(error))
            else:
                # Time stamps and the like: they belong to no model.
                assert (back, back.name) == (small, small.name)
    assert noticed > len(content)
    assert all(line.startswith(str(written)) and "\n" not in line for line in lines)


@settings(max_examples=200)
@given(content=st.binary(max_size=300))
def test_noise_is_refused(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("noise") / "model.npz"
    path.write_bytes(content)
    refused(path)


def rewritten(path, header=None, compression=zipfile.ZIP_STORED, **members):
    """The file again, with a changed header or members."""
    with zipfile.ZipFile(path) as archive:
        kept = {info.filename: archive.read(info) for info in archive.infolist()}
    if header is not None:
        old = json.loads(np.load(io.BytesIO(kept["header.npy"])).tobytes())
        members["header"] = np.frombuffer(json.dumps(old | header).encode(), np.uint8)
    for name, value in members.items():
        buffer = io.BytesIO()
        if isinstance(value, bytes):
            buffer.write(value)
        else:
            np.save(buffer, value)
        kept[f"{name}.npy"] = buffer.getvalue()
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, value in kept.items():
            archive.writestr(name, value)


def lying_header(shape, dtype="<f8", order=False):
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"shape": shape, "fortran_order": order, "descr": dtype})
    return buffer.getvalue() + bytes(24)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"header": {"version": 2}}, "version 2 of the format; this library reads version 1"),
        ({"header": {"format": "other"}}, "not a model file"),
        ({"header": {"digest": "0" * 64}}, "the digest does not match"),
        ({"header": {"kind": "Exploit"}}, "unknown kind of model 'Exploit'"),
        ({"header": {"kind": []}}, "damaged"),
        ({"header": {"kind": "DiscountedMDP"}}, "damaged"),
        ({"header": {"name": "another"}}, "the digest does not match"),
        ({"header": {"horizon": 4}}, "the digest does not match"),
        ({"header": {"horizon": "3"}}, "horizon must be an integer"),
        ({"header": {"reward_law": "bernoulli"}}, "contradicts"),
        ({"header": {"state_labels": ["a"]}}, "state_labels has 1 labels for 2"),
        ({"header": {"sparse": [2, 1]}}, None),
        ({"header": {"sparse": [2, 1, 10**12, True]}}, "indptr has shape"),
        ({"initial": np.array([0.5, 0.5])}, "the digest does not match"),
        ({"data": np.array([0.25, 0.5, 1.0])}, r"transition\[0, 0\] sums to 0.75"),
        ({"data": np.array([np.nan, 0.5, 1.0])}, "nan"),
        ({"reward": np.array([[1.7], [0.0]])}, "not those of the outcomes"),
        ({"reward": np.array([[np.nan], [0.0]])}, "not those of the outcomes"),
        ({"indices": np.array([0, 9, 1], np.uint32)}, "is not a state"),
        ({"data": np.array([0.25, 0.75, 1.0], np.float32)}, "data holds float32"),
        ({"data": lying_header((10**15,))}, "has 24 bytes, not 8000000000000000"),
        ({"data": lying_header((10**15, 10**15, 10**15))}, "has 24 bytes"),
        ({"data": lying_header((-1, -3))}, "has 24 bytes"),
        ({"data": lying_header((3,), "|O")}, "data holds object"),
        ({"data": lying_header((3,), "<f8", True)}, "in C order"),
        ({"data": lying_header((3,)).replace(b"\x93NUMPY\x01", b"\x93NUMPY\x03")}, "unknown .npy version"),
        ({"data": b"not an array"}, None),
        ({"surprise": np.zeros(2)}, "unknown member 'surprise'"),
        ({"header": {}, "compression": zipfile.ZIP_DEFLATED}, "is compressed"),
    ],
    ids=lambda part: "" if isinstance(part, str) or part is None else str(list(part.items()))[:40],
)
def test_tampered_files(written, changes, message):
    rewritten(written, **changes)
    refused(written, message)


def test_a_decompression_bomb_is_not_unpacked(written):
    rewritten(written, data=np.zeros(10**7), compression=zipfile.ZIP_DEFLATED)
    assert written.stat().st_size < 10**5
    refused(written, "is compressed")


@pytest.mark.parametrize("field", [20, 24])
def test_a_directory_that_lies_about_sizes(written, field):
    """Sizes of a member in the archive's directory are at bytes 20 (stored) and 24 (unpacked) of its entry."""
    content = bytearray(written.read_bytes())
    place = content.index(b"PK\x01\x02") + field
    content[place : place + 4] = (2**31 - 1).to_bytes(4, "little")
    written.write_bytes(content)
    refused(written, "the members are longer than the file")


def test_headers_that_are_none(written):
    for text in (b"[" * 10**5, b"\xff\xfe", b"{", b"3"):
        path = written.with_name("deep.npz")
        np.savez(path, header=np.frombuffer(text, np.uint8))
        refused(path, "header")


def test_foreign_archives(tmp_path):
    path = tmp_path / "other.npz"
    np.savez(path, x=np.zeros(3))
    refused(path, "not a model file")
    path.write_text("s,a\n1,2\n")
    refused(path, "truncated, or not a model file")
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "absent.npz")


def test_numpy_reads_it_without_pickle(written):
    with np.load(written, allow_pickle=False) as archive:
        header = json.loads(archive["header"].tobytes())
        assert header["format"] == "theoryrl-mdp"
        assert archive["data"].tolist() == [0.25, 0.75, 1.0]


def test_only_models_are_saved(tmp_path):
    with pytest.raises(TypeError, match="not dict"):
        save({}, tmp_path / "x.npz")
    assert not os.listdir(tmp_path)


def test_a_failed_write_leaves_the_old_file(written, small):
    before = written.read_bytes()

    def fail(file):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match=f"No space left.*{written.name}"):
        write_whole(written, fail)
    with pytest.raises(KeyboardInterrupt):
        write_whole(written, lambda file: (_ for _ in ()).throw(KeyboardInterrupt()))
    assert written.read_bytes() == before
    assert os.listdir(written.parent) == ["small.npz"]
    with pytest.raises(FileNotFoundError):
        save(small, written.parent / "no folder" / "x.npz")


def test_only_regular_files_are_replaced(small, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="not a regular file.*pipe"):
        save(small, tmp_path / "pipe")
    with pytest.raises(IsADirectoryError):
        save(small, tmp_path)
    assert os.listdir(tmp_path) == ["pipe"] and not (tmp_path / "pipe").is_file()


def test_a_write_that_the_system_refuses(written, small):
    """As on a full disk: no byte goes beyond the limit, an error says so, the old file stays."""
    before = written.read_bytes()
    code = (
        "import resource, sys, theoryrl as t; m = t.load(sys.argv[1]);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000)); t.save(m.renamed('new'), sys.argv[1])"
    )
    result = subprocess.run([sys.executable, "-c", code, str(written)], capture_output=True, text=True)
    assert result.returncode == 1
    assert "OSError" in result.stderr
    assert written.read_bytes() == before
    assert os.listdir(written.parent) == ["small.npz"]


def test_load_any(written, small, tmp_path):
    assert load_any(written) == small
    assert load_any(str(written), horizon=7) == small.with_horizon(7)
    with pytest.raises(ValueError, match=r"ends in \.npz or \.tra, not in '\.csv'"):
        load_any(tmp_path / "model.csv")
    with pytest.raises(ValueError, match="no suffix"):
        load_any(tmp_path / "model")
    with pytest.raises(ValueError, match="pass horizon="):
        load_any(tmp_path / "model.tra")
    with pytest.raises(FileNotFoundError):
        load_any(tmp_path / "absent.npz")
