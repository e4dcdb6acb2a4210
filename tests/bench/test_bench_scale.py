"""The benchmark of a job's driver, at sizes that take no time."""

import json

from recbatch.cli import main


def test_every_image_is_planned_and_committed_and_the_result_is_json(capsys):
    words = ["bench", "scale", "--images", "2000", "--files", "70", "--workers", "3", "--json", "--quiet"]
    assert main(words) == 0
    result = json.loads(capsys.readouterr().out)
    assert [(row["images"], row["order"]) for row in result["planning"]] == [
        (2000, "sorted"),
        (2000, "shuffled"),
    ]
    assert all(row["shards"] > 0 and row["commits"] > 0 for row in result["planning"])
    assert [row["files"] for row in result["growth"]] == [70]


def test_the_tables_say_what_was_measured(capsys):
    assert main(["bench", "scale", "--images", "500", "--files", "40", "--quiet"]) == 0
    shown = capsys.readouterr().out
    assert "500" in shown
    assert "commit ms" in shown
