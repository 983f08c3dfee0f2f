"""Known estimators, ported from their descriptions, to compare with in the same run.

cuckoo_time_translator: `KalmanOwt` with its defaults and the switching convex hull (100 s).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

I64 = NDArray[np.int64]
F64 = NDArray[np.float64]


def cuckoo_kalman(device_ns: I64, host_ns: I64) -> F64:
    """Offset (ns) of each frame: sigma_offset 2 ms, sigma_skew 2e-6, cool-down 0.5 s.

    A measurement further than one Mahalanobis unit is left out, as the original does.
    """
    z = (host_ns - device_ns - (host_ns[0] - device_ns[0])).astype(float) * 1e-9
    t = (device_ns - device_ns[0]).astype(float) * 1e-9
    x = np.array([z[0], 0.0])
    p = np.diag([2e-3**2, 1e-3**2])
    last = t[0]
    out = np.empty(len(t))
    for i in range(len(t)):
        dt = t[i] - last
        if dt >= 0.5:
            f = np.array([[1.0, dt], [0.0, 1.0]])
            x = f @ x
            p = f @ p @ f.T + dt * np.diag([0.0, 2e-6**2])
            spread = p[0, 0] + 2e-3**2
            if abs(z[i] - x[0]) <= np.sqrt(spread):
                k = p[:, 0] / spread
                x = x + k * (z[i] - x[0])
                p = p - np.outer(k, p[0])
            last = t[i]
            dt = 0.0
        out[i] = x[0] + x[1] * dt
    return out * 1e9 + float(host_ns[0] - device_ns[0])


class _Hull:
    """Lower convex hull of (device, offset), the line through its middle."""

    def __init__(self) -> None:
        self.points: list[tuple[float, float]] = []

    def add(self, x: float, y: float) -> None:
        points = self.points
        while len(points) >= 2:
            (x0, y0), (x1, y1) = points[-2], points[-1]
            if (x1 - x0) * (y - y0) > (y1 - y0) * (x - x0):
                break
            points.pop()
        points.append((x, y))

    def at(self, x: float) -> float:
        points = self.points
        if len(points) < 2:
            return points[-1][1]
        middle = 0.5 * (points[0][0] + points[-1][0])
        low, high = 0, len(points) - 1
        while high - low > 1:
            k = (low + high) // 2
            low, high = (k, high) if points[k][0] <= middle else (low, k)
        (x0, y0), (x1, y1) = points[low], points[high]
        return y0 + (y1 - y0) / (x1 - x0) * (x - x0)


def switching_hull(device_ns: I64, host_ns: I64, switch_s: float = 100.0) -> F64:
    """Offset (ns) of each frame: two hulls, the older of them answers."""
    z = (host_ns - device_ns - (host_ns[0] - device_ns[0])).astype(float)
    t = (device_ns - device_ns[0]).astype(float) * 1e-9
    old, young, since = _Hull(), _Hull(), 0.0
    out = np.empty(len(t))
    for i, (x, y) in enumerate(zip(t.tolist(), z.tolist(), strict=True)):
        if x - since > switch_s:
            old, young, since = young, _Hull(), x
        old.add(x, y)
        young.add(x, y)
        out[i] = old.at(x)
    return out + float(host_ns[0] - device_ns[0])
