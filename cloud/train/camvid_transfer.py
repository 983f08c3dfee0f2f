"""What a segmenter trained on rendered scenes is worth on real ones: its road against CamVid's.

For information: nothing is learned or chosen from these pictures (CC-BY-NC).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from syncline.cloud.models.agreement import IGNORE, nearest
from syncline.cloud.models.probe import Probe
from syncline.cloud.train.pairs import Images, Pairs
from syncline.edge.decode import LabelMap
from syncline.sensors.synthetic.surfaces import Surface

CAMVID_ROAD = 3
"""CamVid's road holds its markings."""
_ROAD = (Surface.ROAD, Surface.MARKING)


def road_iou(probe: Probe, pairs: Pairs) -> float:
    """Intersection over union of road on labelled real pictures."""
    maps = []
    for frame in pairs.frames:
        result = probe(frame)
        assert isinstance(result, LabelMap)
        maps.append(result.labels)
    found = np.stack(maps)
    return _iou(np.isin(found, _ROAD), _at(pairs.labels, found.shape[1:]))


def fixed_iou(pairs: Pairs) -> float:
    """The same of one fixed shape, what is road in most of the pictures: the least to beat."""
    truth = _at(pairs.labels, pairs.labels.shape[1:])
    shape = (truth == CAMVID_ROAD).mean(axis=0) > 0.5
    return _iou(np.broadcast_to(shape, truth.shape), truth)


def _at(labels: Images, shape: tuple[int, ...]) -> Images:
    return np.stack([nearest(label, shape) for label in labels])


def _iou(road: NDArray[np.bool_], truth: Images) -> float:
    ours, theirs = road & (truth != IGNORE), truth == CAMVID_ROAD
    return float((ours & theirs).sum() / max(int((ours | theirs).sum()), 1))
