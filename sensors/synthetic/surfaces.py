"""What every pixel of a picture shows: the classes of the label maps.

A map is filled beside the picture, by the same shapes in the same order, without the picture's soft
edges, blur and noise. Pictures are the same with and without one.
"""

from __future__ import annotations

import enum

import numpy as np
from numpy.typing import NDArray

Map = NDArray[np.uint8]
"""A `Surface` per pixel (H, W)."""


class Surface(enum.IntEnum):
    """Classes of a label map; values are class ids of the shipped segmenter."""

    SKY = 0
    ROAD = 1
    MARKING = 2
    PAVEMENT = 3
    VERGE = 4
    STRUCTURE = 5
    VEGETATION = 6
    POST = 7
    VEHICLE = 8
    PERSON = 9


SURFACE_NAMES = (
    "sky", "road", "road marking", "pavement", "verge", "structure", "vegetation", "post",
    "vehicle", "person",
)  # fmt: skip
"""Structure: buildings, tunnel, portals. Vegetation: trees and hills. Post: poles, lamps, signs,
traffic lights. Verge: grass."""
