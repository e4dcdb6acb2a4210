"""The archive lies in a bucket of a real server, which fails; no image is lost or doubled."""

import pytest
from chaos_s3 import FAULTS, PlayOnS3, draw_s3
from chaos_table import tell
from proxy import Times

from recbatch.archive import Archive

pytestmark = pytest.mark.chaos


@pytest.fixture
def patient(proxy, monkeypatch):
    """The proxy, before which nobody gives up a slow answer: a first write to a bucket may take seconds."""
    monkeypatch.setenv("RECBATCH_S3_TIMEOUT", "60")
    return proxy


@pytest.fixture
def play(tmp_path, bucket, seaweed, patient, as_user, undisturbed):
    games = []

    def begin(seed):
        games.append(
            PlayOnS3(draw_s3(seed), tmp_path, bucket=bucket, server=seaweed, proxy=patient, go_direct=as_user)
        )
        tell(games[-1].play(undisturbed))

    yield begin
    for game in games:
        game.close()
    if seaweed.process is None:
        seaweed.start()


def test_a_listing_that_breaks_off_is_asked_for_again(bucket, patient):
    for number, work in enumerate([Archive.create, Archive.open], 1):
        patient.plan = Times("cut", 1, lambda request: "list-type=2" in request.query)
        assert work(f"s3://{bucket}/archive").version == 0
        assert patient.spoilt("cut") == number


def test_answers_to_commits_that_get_lost_cost_and_double_nothing(play):
    play(FAULTS.index("S3 loses the answers to commits"))


@pytest.mark.long
@pytest.mark.parametrize("seed", range(3 * len(FAULTS)), ids=lambda seed: f"s3-{seed}")
def test_no_image_is_lost_or_doubled_whatever_the_store_does(play, seed):
    play(seed)
