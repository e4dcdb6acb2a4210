import json

from typer.testing import CliRunner

from recbatch.bench.driver import SHARD_S, driver_cost
from recbatch.cli.app import app


def test_every_simulated_shard_comes_back_and_costs_something():
    cost = driver_cost(workers=7, shards=300)
    assert (cost.workers, cost.shards) == (7, 300)
    assert cost.turns >= 300  # one shard ends at a time
    assert cost.busy == cost.cpu_s / 300 * 7 / SHARD_S


def test_the_command_prints_a_table_or_json():
    arguments = ["bench", "driver", "--workers", "1", "--workers", "3", "--shards", "50"]
    table = CliRunner().invoke(app, arguments)
    assert (table.exit_code, "us a shard" in table.stdout) == (0, True)
    found = CliRunner().invoke(app, [*arguments, "--json", "--quiet"])
    report = json.loads(found.stdout)
    assert [(row["workers"], row["shards"]) for row in report["rows"]] == [(1, 50), (3, 50)]
