"""Second data files of a model: where they may lie, and how they are taken in.

A model can name any path for its weights; a hostile one names /etc/shadow or climbs out with
`..`. Only a plain file beside the model is read, within its size, and only on import.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import onnx

from syncline.cloud.models.graph import MAX_MODEL_BYTES
from syncline.errors import ModelError


def external_tensors(model: onnx.ModelProto) -> list[onnx.TensorProto]:
    """Every tensor whose bytes lie outside the model file, subgraphs included."""
    return [t for t in _all_tensors(model.graph) if t.data_location == onnx.TensorProto.EXTERNAL]


def _all_tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            if attribute.HasField("g"):
                yield from _all_tensors(attribute.g)
            for inner in attribute.graphs:
                yield from _all_tensors(inner)


def embed_external(model: onnx.ModelProto, folder: Path) -> int:
    """Take every second data file into the model, in place; returns the number of tensors.

    Args:
        model: As parsed.
        folder: The folder of the model file: the only place that is read.

    Raises:
        ModelError: A path leaves the folder, is a link, is absent, or bytes are out of range.
    """
    tensors = external_tensors(model)
    total = 0
    for tensor in tensors:
        data = _read_range(tensor, folder)
        total += len(data)
        if total > MAX_MODEL_BYTES:
            raise ModelError(f"the model's data files hold more than {MAX_MODEL_BYTES} bytes")
        tensor.raw_data = data
        tensor.ClearField("external_data")
        tensor.data_location = onnx.TensorProto.DEFAULT
    return len(tensors)


def _read_range(tensor: onnx.TensorProto, folder: Path) -> bytes:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    path = _safe_path(entries.get("location", ""), folder, tensor.name)
    size = path.stat().st_size
    offset = _number(entries, "offset", 0, tensor.name)
    length = _number(entries, "length", size - offset, tensor.name)
    if offset + length > size or length > MAX_MODEL_BYTES or length < 0:
        raise ModelError(
            f"tensor {tensor.name!r} asks for bytes {offset}..{offset + length} of {path.name}, "
            f"which has {size}",
            remedy="Fetch the model's data file again",
        )
    with path.open("rb") as stream:
        stream.seek(offset)
        return stream.read(length)


def _number(entries: dict[str, str], key: str, default: int, tensor: str) -> int:
    text = entries.get(key, "")
    if not text:
        return default
    if not text.isascii() or not text.isdigit():
        raise ModelError(f"tensor {tensor!r}: external {key}={text[:40]!r} is not a number")
    return int(text)


def _safe_path(location: str, folder: Path, tensor: str) -> Path:
    """A plain file directly under the model's folder, or an error."""
    parts = PurePosixPath(location).parts
    climbs = not parts or location.startswith(("/", "\\")) or ".." in parts or "\\" in location
    if climbs or "\0" in location or ":" in location:
        raise ModelError(
            f"tensor {tensor!r} names the data file {location[:120]!r}, which leaves the folder",
            remedy="Do not use this model: its paths are not those of an exporter",
        )
    path = folder.joinpath(*parts)
    steps = [folder.joinpath(*parts[: i + 1]) for i in range(len(parts))]
    if any(step.is_symlink() for step in steps):
        raise ModelError(
            f"the data file {location!r} is a link", remedy="Put the file itself there"
        )
    if not path.is_file():
        raise ModelError(
            f"the data file {location!r} is absent", remedy=f"Put it beside the model in {folder}"
        )
    return path
