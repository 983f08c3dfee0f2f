"""Chosen pictures on their way with real processes: what was chosen arrives, and nothing else."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from syncline.cloud.catalog import Catalog
from syncline.cloud.harvest import harvest
from syncline.cloud.objects import Objects
from syncline.messages import syncline_pb2 as pb
from tests.system.rig import Site, wait_for

pytestmark = [pytest.mark.soak, pytest.mark.timeout(300)]


def compared(site: Site) -> int:
    with Catalog.open(site.cloud) as catalog:
        boots = catalog.boots("car-1")
        return sum(catalog.count("car-1", boot, "/camera/front/disagreement") for boot in boots)


def test_edge_36_the_collector_gets_the_chosen_pictures_and_no_other(
    site: Site, clip: Path
) -> None:
    """edge-36: over a kill of the daemon; every choice that was recorded is served."""
    config = site.config(
        clip,
        bundle="road-detector",
        model='shadow = "road-detector"',
        extra="[record]\nsegment_s = 2.0\n",
    )
    text = config.read_text().replace("drain_s", 'upload_images = "chosen"\ndrain_s')
    config.write_text(text)
    collector, edge = site.collect(), site.edge(config)
    wait_for("the shadow works", lambda: compared(site) > 60)
    time.sleep(5.0)
    edge.kill()
    edge = site.edge(config)
    before = compared(site)
    wait_for("it works again", lambda: compared(site) > before + 60)
    time.sleep(5.0)
    assert edge.stop() == 0, edge.tail()
    assert collector.stop() == 0, collector.tail()
    with Catalog.open(site.cloud) as catalog:
        (boot,) = catalog.boots("car-1")

        def rows(stream: str) -> list[bytes]:
            return [record.payload for record in catalog.records("car-1", boot, stream)]

        chosen = [pb.Selection.FromString(row) for row in rows("/camera/front/selected")]
        times = [pb.FrameTiming.FromString(row).mid_raw_ns for row in rows("/camera/front/timing")]
        found = harvest(catalog, Objects(site.cloud / "objects"), {})
        kinds = {upload.meta.get("part") for upload in catalog.uploads("car-1")}
    assert kinds == {"chosen"}
    wanted = {
        at
        for at in times
        for row in chosen
        if row.mid_raw_ns - row.before_ns <= at <= row.mid_raw_ns + row.after_ns
    }
    got = {item.mid_raw_ns for item in found.items}
    assert chosen
    assert not found.damaged
    assert found.conflicts == 0
    assert got <= wanted
    # What a killed recorder had not written yet is lost, picture and choice alike.
    assert len(wanted - got) <= 0.1 * len(times)
    print(f"edge-36: {len(got)} of {len(wanted)} chosen pictures, {len(times)} frames in all")
