"""The JSON for AWS parses, names actions and resources that exist, and grants no more than its name says."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import botocore.session
import botocore.validate
import pytest
from cluster_files import CLUSTER, fill

from recbatch.archive import Archive

POLICIES = sorted((CLUSTER / "aws" / "policies").glob("*.json"))
LIFECYCLES = sorted((CLUSTER / "aws").glob("lifecycle*.json"))

# S3's names of permissions are not those of its calls; these are all that recbatch has a use for.
ON_BUCKETS = {"s3:ListBucket"}
READ = {"s3:GetObject"}
ADD = {"s3:GetObject", "s3:PutObject", "s3:AbortMultipartUpload"}
DELETE = {"s3:DeleteObject"}
WANTED: dict[str, dict[str, set[str]]] = {  # policy: resource, without the bucket: actions
    "source-reader": {"": ON_BUCKETS, "/*": READ},
    "archive-reader": {"": ON_BUCKETS, "/*": READ},
    "archive-writer": {
        **{"": ON_BUCKETS, "/*": ADD},
        **{f"/*/_recbatch/{folder}/*": DELETE for folder in ("schedules", "ticks")},
    },
    "archive-upkeep": {"": ON_BUCKETS, "/*": ADD | DELETE},
}


def statements(path: Path) -> list[dict[str, Any]]:
    document = json.loads(fill(path.read_text(encoding="utf-8")))
    assert document.keys() == {"Version", "Statement"}
    assert document["Version"] == "2012-10-17"  # an older one knows no variables and is not meant by anybody
    for statement in document["Statement"]:
        assert statement.keys() <= {"Sid", "Effect", "Action", "Resource", "Condition"}
        assert statement["Effect"] == "Allow"
        assert statement["Sid"].isalnum()
    return list(document["Statement"])


def listed(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def test_every_policy_is_checked() -> None:
    assert {path.stem for path in POLICIES} == {*WANTED, "ray-head"}


def granted(name: str) -> dict[str, set[str]]:
    bucket = "arn:aws:s3:::" + ("our-photos" if name == "source-reader" else "our-archive")
    found: dict[str, set[str]] = {}
    for statement in statements(CLUSTER / "aws" / "policies" / f"{name}.json"):
        for resource in listed(statement["Resource"]):
            assert resource.startswith(bucket)
            found.setdefault(resource.removeprefix(bucket), set()).update(listed(statement["Action"]))
    return found


@pytest.mark.parametrize("name", WANTED)
def test_a_bucket_policy_grants_what_its_name_says_and_nothing_else(name: str) -> None:
    assert granted(name) == WANTED[name]


def test_the_head_starts_workers_and_ends_only_those_of_our_clusters() -> None:
    session = botocore.session.get_session()
    calls = {f"ec2:{name}" for name in session.get_service_model("ec2").operation_names}
    granted = statements(CLUSTER / "aws" / "policies" / "ray-head.json")
    actions = {action for statement in granted for action in listed(statement["Action"])}
    assert actions - {"iam:PassRole"} <= calls  # EC2 names permissions as it names calls
    by_action = {action: s for s in granted for action in listed(s["Action"])}
    assert "Condition" in by_action["ec2:TerminateInstances"]
    assert by_action["iam:PassRole"]["Resource"].endswith(":role/recbatch-worker")
    assert [
        a for a, s in by_action.items() if s["Resource"] == "*" and not a.startswith("ec2:Describe")
    ] == []


def lifecycle_problems(document: dict[str, Any]) -> str:
    model = botocore.session.get_session().get_service_model("s3")
    shape = model.operation_model("PutBucketLifecycleConfiguration").input_shape
    request = {"Bucket": "our-archive", "LifecycleConfiguration": document}
    return str(botocore.validate.ParamValidator().validate(request, shape).generate_report())


@pytest.mark.parametrize("path", LIFECYCLES, ids=lambda path: path.stem)
def test_s3_would_take_the_lifecycle_rules(path: Path) -> None:
    document = json.loads(path.read_text(encoding="utf-8"))
    assert lifecycle_problems(document) == ""
    assert all(rule["Status"] == "Enabled" for rule in document["Rules"])
    # an upload that a worker is still at must live: a data file takes minutes, and a job a day at most
    assert document["Rules"][0]["AbortIncompleteMultipartUpload"]["DaysAfterInitiation"] >= 7
    for rule in document["Rules"]:  # what is current is the archive: no rule may touch it
        assert rule.get("Expiration", {}).keys() <= {"ExpiredObjectDeleteMarker"}
        assert "Transitions" not in rule


def test_a_lifecycle_rule_that_s3_would_refuse_is_seen() -> None:
    document = json.loads((CLUSTER / "aws" / "lifecycle.json").read_text(encoding="utf-8"))
    document["Rules"][0]["AbortIncompleteMultipartUpload"] = {"DaysAfterInitation": 7}
    assert lifecycle_problems(document) != ""


def test_the_trust_of_a_role_is_in_ec2_alone() -> None:
    [statement] = json.loads((CLUSTER / "aws" / "trust-ec2.json").read_text(encoding="utf-8"))["Statement"]
    assert statement["Principal"] == {"Service": "ec2.amazonaws.com"}
    assert statement["Action"] == "sts:AssumeRole"


def test_a_job_deletes_nothing_from_an_old_log(tmp_path: Path) -> None:
    archive = Archive.create(tmp_path / "archive")
    for _ in range(25):
        archive.claim_epoch("job")
    log = tmp_path / "archive" / "_delta_log"
    before = {path.name for path in log.glob("*.json")}
    long_ago = time.time() - 60 * 86400
    for path in log.iterdir():
        os.utime(path, (long_ago, long_ago))
    for _ in range(12):
        archive.claim_epoch("job")
    assert before <= {path.name for path in log.glob("*.json")}
