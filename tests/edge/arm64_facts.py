"""What a machine makes of the builds of `arm64_builds`; run on x86 and in the arm64 system.

Run as: python tests/edge/arm64_facts.py FOLDER NAME. It writes FOLDER/NAME.json and NAME.npz, and
uses nothing but what a device has: no onnx, no test library.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from syncline.cloud.models.targets import this_machine
from syncline.edge.backend import Backend, BackendOptions
from syncline.edge.decode import Boxes, Decoded, LabelMap, decoder_for
from syncline.edge.engine import Engine
from syncline.edge.model.bundle import Bundle
from syncline.edge.preprocess import Preprocessor
from syncline.edge.providers import Host
from syncline.edge.shipped import resolve_bundle, shipped_bundles
from syncline.errors import SynclineError

ANY = BackendOptions(any_device_class=True)
Arrays = dict[str, NDArray[np.generic]]


def main() -> None:
    """Load every bundle as a device would, and run it on the tensors and frames of the folder."""
    folder, name = Path(sys.argv[1]), sys.argv[2]
    host = Host.this()
    facts: dict[str, object] = {
        "machine": platform.machine(),
        "page_bytes": os.sysconf("SC_PAGE_SIZE"),
        "flags": sorted(host.flags),
        "classes": sorted(host.device_classes()),
        "target": this_machine().name,
    }
    bundles = {key: resolve_bundle(key) for key in shipped_bundles()}
    bundles |= {at.parent.name: at.parent for at in sorted(folder.glob("*/manifest.toml"))}
    with np.load(folder / "frames.npz") as data:
        pictures = list(data["frames"])
    found: Arrays = {}
    loads: dict[str, object] = {}
    with np.load(folder / "wanted.npz") as wanted:
        for key, at in bundles.items():
            bundle = Bundle.open(at, trusted_keys=None)
            loads[key] = loading(bundle)
            if bundle.manifest.target.device_class in ("any", "arm64"):
                found |= run(key, bundle, wanted, pictures)
            print(f"{name}: {key}", flush=True)
    facts["loads"] = loads
    facts["cache"] = caching(bundles["road-detector"], folder / "cache")
    np.savez(folder / f"{name}.npz", allow_pickle=False, **found)
    (folder / f"{name}.json").write_text(json.dumps(facts, indent=1), encoding="utf-8")


def loading(bundle: Bundle) -> dict[str, object]:
    """How it loads to serve, and how it proves its golden output."""
    try:
        proof = Engine.load(bundle, BackendOptions()).proof
    except SynclineError as error:
        return {"error": type(error).__name__, "text": str(error)}
    runtime = bundle.manifest.target.runtime
    return {"runtime": runtime, "agreement": proof.agreement, "off": proof.max_abs_diff}


def run(key: str, bundle: Bundle, wanted: Any, pictures: list[NDArray[np.uint8]]) -> Arrays:
    """Outputs on the given tensors; of shipped bundles also results on frames by the whole path."""
    manifest = bundle.manifest
    backend = Backend.load(bundle, ANY)
    decode, prepare = decoder_for(manifest), Preprocessor(manifest.input)
    found: Arrays = {}
    for i, picture in enumerate(pictures):
        found[f"{key}|{i}|out"] = backend.run(wanted[f"{key}|{i}|in"])[0]
        if key in shipped_bundles():
            tensor, geometry = prepare(picture)
            found[f"{key}|{i}|tensor"] = tensor.copy()
            found[f"{key}|{i}|whole"] = as_array(decode(backend.run(tensor), geometry))
    return found


def as_array(result: Decoded) -> NDArray[np.generic]:
    """Boxes as rows of x0, y0, x1, y1, score, class; label maps as they are."""
    if isinstance(result, Boxes):
        return np.column_stack([result.xyxy_px, result.score, result.class_id])
    assert isinstance(result, LabelMap)
    return result.labels


def caching(at: Path, root: Path) -> dict[str, object]:
    """The cache of compiled models, which may hold those of another machine already."""
    bundle = Bundle.open(at, trusted_keys=None)
    before = sorted(path.name for path in root.glob("*.onnx"))
    options = BackendOptions(cache_dir=root)
    first = Backend.load(bundle, options)
    again = Backend.load(bundle, options)
    tensor = Preprocessor(bundle.manifest.input)(bundle.golden().frame)[0]
    same = all(
        np.array_equal(a, b) for a, b in zip(first.run(tensor), again.run(tensor), strict=True)
    )
    mine = sorted({path.name for path in root.glob("*.onnx")} - set(before))
    cached = [first.from_cache, again.from_cache]
    return {"before": before, "made": mine, "cached": cached, "same": same}


if __name__ == "__main__":
    main()
