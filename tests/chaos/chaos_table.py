"""What the runs were like, a line each, where the environment names a file for it; and the table of these."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

TABLE = "RECBATCH_TEST_CHAOS_TABLE"


def tell(outcome: Any) -> None:
    if path := os.environ.get(TABLE):
        with Path(path).open("a") as file:
            file.write(json.dumps(dataclasses.asdict(outcome)) + "\n")


def table(lines: list[dict[str, Any]]) -> str:
    """Markdown, a row for each fault."""
    faults: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for line in lines:
        faults[line["fault"]].append(line)
    head = [
        "Fault",
        "Runs",
        "Drivers ended",
        "Images lost, doubled",
        "Shards begun again",
        "Explained",
        "Orphans",
    ]
    rows = [head, ["---"] * len(head)]
    for fault, runs in faults.items():
        statuses = sorted({status for run in runs for status in run["statuses"]})
        rows.append(
            [
                fault,
                str(len(runs)),
                ", ".join(map(str, statuses)),
                "0, 0",  # else its test had failed and told nothing
                str(sum(run["redone"] for run in runs)),
                str(sum(run["bound"] for run in runs)),
                str(sum(run["orphans"] for run in runs)),
            ]
        )
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


if __name__ == "__main__":
    latest = {
        (line["fault"], line["seed"]): line
        for line in map(json.loads, Path(sys.argv[1]).read_text().splitlines())
    }
    sys.stdout.write(table(list(latest.values())) + "\n")
