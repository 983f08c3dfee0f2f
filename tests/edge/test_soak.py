"""Long or loud cases: `make soak`."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from syncline.edge.decode import LabelMap
from syncline.edge.engine import Engine
from syncline.edge.shadow import compare_labels

from . import real


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_edge_36_disagreement_finds_the_errors_of_a_weaker_model(
    shared_data: Path, tmp_path: Path
) -> None:
    """edge-36: mean error of the tenth that the score picks / mean error, CamVid: >= 1.3.

    TwinLiteNet on 80 x 60 pictures stands for the serving model, on full pictures for the shadow;
    CamVid's road label is the truth. With a serving model that is nearly as good as the shadow
    (120 x 90) the lift was 1.14: the score needs a shadow that is clearly better.
    """
    engine = Engine.load(real.bundle("twinlite", shared_data, tmp_path / "b"))
    pre = engine.preprocessor()
    folder = shared_data / "images/camvid"

    def drivable(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        tensor, geometry = pre(image)
        output = engine.decoder(engine.backend.run(tensor), geometry)
        assert isinstance(output, LabelMap)
        return np.bitwise_and(output.labels, 1)

    scores, errors = [], []
    for path in sorted((folder / "val").iterdir()):
        image = np.asarray(cv2.imread(str(path)), dtype=np.uint8)
        truth = np.asarray(cv2.imread(str(folder / "valannot" / path.name), 0), dtype=np.uint8)
        road = cv2.resize(truth, (640, 360), interpolation=cv2.INTER_NEAREST) == 3
        small = cv2.resize(image, (80, 60), interpolation=cv2.INTER_AREA)
        serving = drivable(np.asarray(small, dtype=np.uint8))
        shadow = drivable(image)
        errors.append(float(np.mean(serving != road)))
        scores.append(compare_labels(serving, shadow).score)
    picked = np.argsort(scores)[-len(scores) // 10 :]
    lift = float(np.mean(np.array(errors)[picked]) / np.mean(errors))
    print(f"edge-36: lift {lift:.2f} on {len(scores)} frames")
    assert lift >= 1.3
