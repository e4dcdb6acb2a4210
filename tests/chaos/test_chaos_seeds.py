"""Faults drawn from a seed strike one job of 200 images; whatever they are, no image is lost or doubled.

The long form goes round all kinds of faults several times. One seed again: ``pytest -m long tests/chaos -k seed-17]``.
With RECBATCH_TEST_CHAOS_TABLE=FILE each run leaves a line; ``python tests/chaos/chaos_table.py FILE`` makes a table.
"""

from dataclasses import replace

import pytest
from chaos_play import Play
from chaos_scenarios import FAULTS, KEYS, draw
from chaos_table import tell

pytestmark = pytest.mark.chaos
ROUNDS = 4
SHORT = (
    "driver killed inside a commit",
    "driver frozen, overtaken, thawed",
)


def play(scenario, folder, undisturbed):
    game = Play(scenario, folder)
    try:
        tell(game.play(undisturbed))
    finally:
        game.close()


@pytest.mark.parametrize("fault", SHORT)
def test_no_image_is_lost_or_doubled(tmp_path, undisturbed, fault):
    play(draw(FAULTS.index(fault)), tmp_path, undisturbed)


def test_several_workers_that_die_in_one_job_cost_no_image(tmp_path, undisturbed):
    traps = [("killed-in-write", KEYS[20]), ("file-lost", KEYS[90]), ("killed-after-write", KEYS[150])]
    scenario = draw(FAULTS.index("worker killed in its write"))
    play(replace(scenario, traps=tuple(traps)), tmp_path, undisturbed)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(ROUNDS * len(FAULTS)), ids=lambda seed: f"seed-{seed}")
def test_no_image_is_lost_or_doubled_whatever_happens(tmp_path, undisturbed, seed):
    play(draw(seed), tmp_path, undisturbed)
