"""What a segmenter trained on rendered scenes is worth on real ones: its road against CamVid's.

For information: nothing is learned or chosen from these pictures (CC-BY-NC).
"""

from __future__ import annotations

import numpy as np

from syncline.cloud.models.agreement import IGNORE, nearest
from syncline.cloud.models.probe import Probe
from syncline.cloud.train.pairs import Pairs
from syncline.edge.decode import LabelMap
from syncline.sensors.synthetic.surfaces import Surface

CAMVID_ROAD = 3
"""CamVid's road holds its markings."""
_ROAD = (Surface.ROAD, Surface.MARKING)


def road_iou(probe: Probe, pairs: Pairs) -> float:
    """Intersection over union of road on labelled real pictures."""
    hits = union = 0
    for frame, label in zip(pairs.frames, pairs.labels, strict=True):
        result = probe(frame)
        assert isinstance(result, LabelMap)
        truth = nearest(label, result.labels.shape)
        ours = np.isin(result.labels, _ROAD) & (truth != IGNORE)
        theirs = truth == CAMVID_ROAD
        hits += int((ours & theirs).sum())
        union += int((ours | theirs).sum())
    return hits / max(union, 1)
