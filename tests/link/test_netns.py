"""A 10 Mbit link with real TCP in a network namespace: tbf caps it, nft drops packets.

Needs root, iproute2 and nftables; soak only.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.soak, pytest.mark.root, pytest.mark.timeout(300)]

_SETUP = """
set -e
ip link set lo mtu 1500 up
tc qdisc add dev lo root tbf rate 10mbit burst 15000 latency 300ms
if [ "$1" != 0 ]; then
  nft add table inet lossy
  nft add chain inet lossy in '{ type filter hook input priority 0; }'
  nft add rule inet lossy in numgen random mod 100 '<' "$1" drop
fi
exec "$2" "$3" "$4"
"""


def _run(loss_percent: int, seconds: float) -> dict[str, float]:
    if os.geteuid() != 0 or not all(map(shutil.which, ("unshare", "ip", "tc", "nft"))):
        pytest.skip("needs root, unshare, iproute2 and nftables")
    script = Path(__file__).with_name("netns_run.py")
    done = subprocess.run(
        ["unshare", "-n", "sh", "-c", _SETUP, "sh", str(loss_percent), sys.executable,
         str(script), str(seconds)],
        check=True, capture_output=True, text=True, timeout=280,
    )  # fmt: skip
    figures: dict[str, float] = json.loads(done.stdout)
    print(f"loss {loss_percent} %:", figures)
    return figures


def test_link_23_backlog_over_ten_megabit() -> None:
    """link-23: the drain uses >= 90 % of the cap; a fresh event's ack takes <= 1 s at p99."""
    figures = _run(0, 25)
    assert figures["left"] > 0, "the backlog ended too early to measure"
    # both directions share the capped loopback: what is left for payload is the cap less headers
    assert figures["goodput"] >= 0.9 * 1_250_000
    assert figures["event_p99_s"] <= 1.0


def test_link_27_five_percent_of_packets_lost() -> None:
    """link-27: goodput >= 50 % of the unimpaired link under the same cap."""
    clean, lossy = _run(0, 15), _run(5, 30)
    print(f"goodput with loss {lossy['goodput'] / clean['goodput']:.2f} of without")
    assert lossy["goodput"] >= 0.5 * clean["goodput"]
