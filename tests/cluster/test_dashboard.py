"""The Grafana dashboard asks for numbers that exist, and its panels do not lie on one another."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

import recbatch
from recbatch.engine.metrics import METERS

DASHBOARD = json.loads(
    (Path(recbatch.__file__).parent.parent / "cluster" / "grafana-dashboard.json").read_text(encoding="utf-8")
)
PANELS = DASHBOARD["panels"]
RAYS_OWN = {  # with the labels that Ray gives them beside these
    "ray_node_gpus_utilization": {"GpuIndex", "GpuDeviceName"},
    "ray_node_mem_used": set(),
    "ray_node_mem_total": set(),
    "ray_actors": {"State", "Name", "Source"},
}
EVERYWHERE = {"SessionName", "instance", "le"}


def served() -> dict[str, set[str]]:
    """Every series that a scrape finds, with the tags of ours."""
    found = dict(RAYS_OWN)
    for meter in METERS:
        endings = ("_bucket", "_sum", "_count") if meter.kind == "Histogram" else ("",)
        found.update({f"ray_{meter.name}{ending}": set(meter.tags) for ending in endings})
    return found


def expressions() -> list[tuple[str, str, str]]:
    """Title of the panel, expression, legend."""
    return [(p["title"], t["expr"], t["legendFormat"]) for p in PANELS for t in p["targets"]]


@pytest.mark.parametrize(("title", "expression", "legend"), expressions())
def test_a_panel_asks_for_series_and_labels_that_are_served(title: str, expression: str, legend: str) -> None:
    known = served()
    names = set(re.findall(r"\b(?:ray|recbatch)_\w+", expression))
    assert names, title
    assert names <= set(known), title
    labels = set(re.findall(r'(\w+)\s*(?:=~|!=|!~|=)\s*"', expression))
    for group in re.findall(r"\bby \(([^)]*)\)", expression):
        labels |= {label.strip() for label in group.split(",")}
    labels |= set(re.findall(r"\{\{\s*(\w+)\s*\}\}", legend))
    assert labels <= EVERYWHERE.union(*(known[name] for name in names)), title
    assert expression.count("(") == expression.count(")")
    assert expression.count("{") == expression.count("}")


def test_every_number_of_ours_is_shown_somewhere() -> None:
    asked = " ".join(expression for _, expression, _ in expressions())
    hidden = {meter.name for meter in METERS if meter.name not in asked}
    assert hidden == {"recbatch_retries_total"}  # the outcomes of shards show them by kind


def test_counters_are_never_shown_as_they_stand_over_time() -> None:
    """A counter only grows: over time its rate says something."""
    counters = {meter.name for meter in METERS if meter.kind == "Counter"}
    for panel in PANELS:
        for target in panel["targets"]:
            if panel["type"] == "timeseries":
                bare = re.findall(r"(?<!rate\()(?<!increase\()\bray_(recbatch_\w+)\{", target["expr"])
                assert not counters.intersection(bare), panel["title"]


def test_panels_tile_the_page() -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in PANELS:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24, panel["title"]
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert taken.setdefault((x, y), panel["title"]) == panel["title"]
    height = max(y for _, y in taken) + 1
    assert len(taken) == 24 * height  # no holes
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)
    assert all(panel["description"] and panel["type"] in {"stat", "timeseries"} for panel in PANELS)


def test_it_imports_anywhere() -> None:
    """No data source of one installation: the reader picks his own."""
    variables = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    sources = {json.dumps(source) for source in found(DASHBOARD, "datasource")}
    assert sources == {json.dumps({"type": "prometheus", "uid": "${datasource}"})}
    used = set(re.findall(r"\$\{?([a-z]\w*)", json.dumps(PANELS)))
    assert used <= set(variables)
    assert "id" not in DASHBOARD


def found(value: Any, key: str) -> list[Any]:
    """All values under a key that are objects, however deep."""
    if isinstance(value, list):
        return [hit for item in value for hit in found(item, key)]
    if not isinstance(value, dict):
        return []
    own = [value[key]] if isinstance(value.get(key), dict) else []
    return own + [hit for item in value.values() for hit in found(item, key)]
