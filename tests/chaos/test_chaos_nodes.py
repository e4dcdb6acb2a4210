"""A cluster loses actors, raylets and nodes under a job; no image is lost or doubled."""

from pathlib import Path

import pytest
from chaos_codec import CODEC, Traps, TrapSettings
from chaos_driver import Patience
from chaos_invariants import check_rows, check_swept, check_whole, finish, redone, rows_of
from chaos_nodes import FAULTS, cluster, draw_steps
from chaos_play import Outcome
from chaos_scenarios import KEYS
from chaos_table import tell
from engine_fakes import fill

from recbatch.engine import compress, events

pytestmark = [pytest.mark.chaos, pytest.mark.long]
HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def nodes():
    with cluster(HERE, HERE.parent / "engine") as nodes:
        yield nodes


@pytest.mark.parametrize("seed", range(2 * len(FAULTS)), ids=lambda seed: f"nodes-{seed}")
def test_no_image_is_lost_or_doubled_whatever_the_cluster_loses(tmp_path, nodes, undisturbed, seed):
    nodes.prepare()
    source, archive = str(tmp_path / "source"), str(tmp_path / "archive")
    fill(tmp_path / "source", KEYS)
    (tmp_path / "traps").mkdir()
    traps = Traps(tmp_path / "traps")
    steps = draw_steps(seed)
    frozen = tuple(("frozen", KEYS[step.pick % 199]) for step in steps if step.fault == "Ray actor frozen")
    for kind, key in frozen:
        traps.set(kind, key)
    waiting = {step.shard: step for step in steps if step.fault != "Ray actor frozen"}
    seen = []

    def progress(event):
        seen.append(event)
        done = sum(isinstance(one, events.ShardDone) for one in seen)
        if isinstance(event, events.ShardDone) and (step := waiting.pop(done, None)):
            nodes.strike(step)

    report = compress(
        source,
        archive,
        settings=TrapSettings(folder=str(traps.folder), sleep_s=0.01),
        workers=3,
        shard_bytes=500,
        codec_factory=CODEC,
        tuning=Patience(
            poll_s=0.1,
            backoff_s=0.01,
            commit_shards=5,
            commit_rest=0.0,
            traps=str(traps.folder),
            short=frozen,
        ),
        progress=progress,
    )
    assert not waiting
    assert (report.images, report.quarantined) == (199, 1), seen
    cost, bound = redone(traps, archive), nodes.cost + 2 * len(frozen)
    assert cost <= bound, seen
    finish(source, archive)
    check_rows(archive, undisturbed)
    check_whole(source, archive)
    tell(
        Outcome(
            fault=FAULTS[seed % len(FAULTS)],
            seed=seed,
            statuses=(report.exit_status,),
            redone=cost,
            bound=bound,
            orphans=check_swept(archive),
            images=len(rows_of(archive)),
        )
    )
