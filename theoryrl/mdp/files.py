"""Models on disk: one `.npz` file with a JSON header, written whole or not at all, checked on the way in."""

from __future__ import annotations

import hashlib
import json
import os
import struct
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from theoryrl.mdp.model import DiscountedMDP, FiniteHorizonMDP
from theoryrl.mdp.transitions import SparseTransition
from theoryrl.mdp.writing import write_whole

FORMAT = "theoryrl-mdp"
VERSION = 1
Model = FiniteHorizonMDP | DiscountedMDP

_KINDS: dict[str, Any] = {
    "FiniteHorizonMDP": (FiniteHorizonMDP, "horizon"),
    "DiscountedMDP": (DiscountedMDP, "discount"),
}
_SETTINGS = ("name", "reward_law", "reward_range", "state_labels", "action_labels")
_SPARSE = ("indptr", "indices", "data")
_DTYPES = {"indptr": np.int64, "indices": np.uint32, "action_mask": np.bool_}
_NAMES = {"transition", *_SPARSE, "reward", "outcome_reward", "reward_noise", "initial", "action_mask"}
# What zipfile and numpy's header parser raise on damaged input, beside ValueError.
_DAMAGE = (
    zipfile.BadZipFile,
    struct.error,
    EOFError,
    KeyError,
    OSError,
    OverflowError,
    RuntimeError,
    SyntaxError,
    TypeError,
)


def save(mdp: Model, path: str | os.PathLike[str]) -> None:
    """Write a model to an `.npz` file, exactly: arrays bit for bit, labels, mask, rewards and their law, name.

    The file appears under its name only when it is complete; `numpy.load(path, allow_pickle=False)` can read it too.
    Equal models give equal bytes.

    Parameters
    ----------
    mdp : FiniteHorizonMDP or DiscountedMDP
    path : path of the file, which is replaced if it exists

    Raises
    ------
    OSError
        When it cannot be written (no such folder, full disk); whatever had that name before is still there.
    """
    if not isinstance(mdp, Model):
        raise TypeError(f"save writes a FiniteHorizonMDP or a DiscountedMDP, not {type(mdp).__name__}")
    header: dict[str, Any] = {"format": FORMAT, "version": VERSION, "kind": type(mdp).__name__}
    header |= {name: getattr(mdp, name) for name in _SETTINGS}
    criterion = "horizon" if isinstance(mdp, FiniteHorizonMDP) else "discount"
    header[criterion] = getattr(mdp, criterion)
    tables = ("reward", "outcome_reward", "reward_noise", "initial", "action_mask")
    arrays = {name: getattr(mdp, name) for name in tables if getattr(mdp, name) is not None}
    rows = mdp.transition
    if mdp.is_sparse:
        header["sparse"] = [rows.n_states, rows.n_actions, rows.n_layers, rows.staged]
        arrays |= {part: getattr(rows, part) for part in _SPARSE}
    else:
        arrays["transition"] = rows
    header["digest"] = _digest(header, arrays)
    text = np.frombuffer(json.dumps(header, allow_nan=False).encode(), np.uint8)
    write_whole(path, lambda file: np.savez(file, header=text, **arrays))


def load(path: str | os.PathLike[str]) -> Model:
    """Read a model that `save` wrote; it equals the one that was saved.

    Nothing in a file is executed or unpickled, no more memory is asked for than the file is long, and a SHA-256
    digest over arrays and settings is compared.

    Raises
    ------
    ValueError
        For files that are truncated, damaged, foreign or of another version: one line that names the file.
    FileNotFoundError
    """
    with open(path, "rb") as file:
        try:
            return _model(_members(file))
        except ValueError as error:
            raise ValueError(f"{os.fspath(path)}: {' '.join(str(error).split())}") from None
        except _DAMAGE as error:
            raise ValueError(f"{os.fspath(path)}: damaged ({' '.join(repr(error).split())})") from None


def load_any(path: str | os.PathLike[str], horizon: int | None = None) -> Model:
    """Read a model file of either kind, told apart by its suffix: `.npz` (see `load`) or `.tra` (see `from_prism`).

    Parameters
    ----------
    path : path of the file
    horizon : int, optional
        H of the result; an `.npz` file has a criterion of its own, PRISM's files have none and need this.

    Raises
    ------
    ValueError
        Other suffixes, files that cannot be read, a missing horizon.
    FileNotFoundError
    """
    suffix = Path(path).suffix.lower()
    if suffix == ".npz":
        mdp = load(path)
        return mdp if horizon is None else mdp.with_horizon(horizon)
    if suffix == ".tra":
        from theoryrl.mdp.interop.prism import from_prism

        if horizon is None:
            raise ValueError(f"{os.fspath(path)}: PRISM's files have no horizon; pass horizon=")
        return from_prism(path, horizon=horizon)
    raise ValueError(f"{os.fspath(path)}: a model file ends in .npz or .tra, not in {suffix or 'no suffix'!r}")


def _members(file: BinaryIO) -> tuple[dict[str, Any], dict[str, NDArray]]:
    """Header and arrays, after checks that keep memory below the length of the file."""
    length = file.seek(0, os.SEEK_END)
    if not zipfile.is_zipfile(file):
        raise ValueError("truncated, or not a model file (no .npz archive)")
    with zipfile.ZipFile(file) as archive:
        infos = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        if "header" not in infos or len(infos) != len(archive.infolist()):
            raise ValueError(f"not a model file (no header of format {FORMAT!r})")
        # save stores without compression: then the sizes are those in the file, and no bomb can hide in them.
        packed = next((info for info in infos.values() if info.compress_type != zipfile.ZIP_STORED), None)
        if packed is not None:
            raise ValueError(f"not written by save ({packed.filename} is compressed)")
        if sum(max(info.file_size, info.compress_size) for info in infos.values()) > length:
            raise ValueError("damaged: the members are longer than the file")
        header = _header(_array(archive, infos.pop("header")))
        unknown = sorted(infos.keys() - _NAMES)
        if unknown:
            raise ValueError(f"damaged: unknown member {unknown[0]!r}")
        return header, {name: _array(archive, info) for name, info in infos.items()}


def _array(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> NDArray:
    """One `.npy` member as a read-only array over the bytes read; its claims are checked before they are believed."""
    fmt = np.lib.format
    with archive.open(info) as member:
        version = fmt.read_magic(member)
        if version == (1, 0):
            shape, fortran, dtype = fmt.read_array_header_1_0(member)
        elif version == (2, 0):
            shape, fortran, dtype = fmt.read_array_header_2_0(member)
        else:
            raise ValueError(f"damaged: {info.filename} has an unknown .npy version {version}")
        content = member.read()
    name = info.filename.removesuffix(".npy")
    want = np.dtype(np.uint8 if name == "header" else _DTYPES.get(name, np.float64))
    if dtype != want or fortran:
        raise ValueError(f"damaged: {name} holds {dtype}, not {want} in C order")
    count = 1
    for size in shape:
        count *= size  # Python integers: a lie about the shape cannot overflow
    if min(shape, default=0) < 0 or count * want.itemsize != len(content):
        raise ValueError(f"damaged: {name} of shape {shape} has {len(content)} bytes, not {count * want.itemsize}")
    return np.frombuffer(content, want).reshape(shape)


def _header(raw: NDArray) -> dict[str, Any]:
    try:
        header = json.loads(raw.tobytes().decode())
    except RecursionError:
        raise ValueError("damaged: the header is nested too deeply") from None
    except ValueError:
        raise ValueError("damaged: the header is no JSON text") from None
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise ValueError(f"not a model file (no header of format {FORMAT!r})")
    if header.get("version") != VERSION:
        raise ValueError(f"version {header.get('version')!r} of the format; this library reads version {VERSION}")
    return header


def _digest(header: dict[str, Any], arrays: dict[str, NDArray]) -> str:
    """SHA-256 of header and arrays, in hexadecimal."""
    code = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for name, array in sorted(arrays.items()):
        code.update(f"{name}{array.dtype.str}{array.shape}".encode())
        code.update(array.data)
    return code.hexdigest()


def _model(read: tuple[dict[str, Any], dict[str, NDArray]]) -> Model:
    header, arrays = read
    kind, criterion = _KINDS.get(header["kind"], (None, ""))
    if kind is None:
        raise ValueError(f"damaged: unknown kind of model {header['kind']!r}")
    given: dict[str, Any] = arrays | {name: header[name] for name in (*_SETTINGS, criterion)}
    if "sparse" in header:
        n_states, n_actions, n_layers, staged = header["sparse"]
        indptr, indices, data = (given.pop(part) for part in _SPARSE)
        given["transition"] = SparseTransition(indptr, indices, data, n_states, n_actions, n_layers, bool(staged))
    if "outcome_reward" in given:
        del given["reward"]
    model: Model = kind(**given)
    # Means of outcomes are sums, and the storage they were once summed in shows in the last bit: keep those saved.
    if model.outcome_reward is not None:
        means, scale = arrays["reward"], max(1.0, float(np.abs(model.outcome_reward).max()))
        if means.shape != model.reward.shape or not (np.abs(means - model.reward) <= 1e-9 * scale).all():
            raise ValueError("damaged: the mean rewards are not those of the outcomes")
        model._put(reward=means)
    digest = header.pop("digest")
    if digest != _digest(header, arrays):
        raise ValueError("damaged: the digest does not match the content")
    return model
