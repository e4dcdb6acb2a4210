"""The files for `ray up` are read by Ray's own parser, and their machines by EC2's service model."""

from __future__ import annotations

import copy
import re
from functools import cache
from pathlib import Path
from typing import Any

import botocore.session
import botocore.validate
import jsonschema
import pytest
from cluster_files import CLUSTER, LAUNCHER_FILES, load

RAYS_OWN = {"SubnetIds", "SecurityGroupIds"}  # in a node's configuration Ray reads these itself


def check(document: dict[str, Any]) -> dict[str, Any]:
    """As `ray up` reads it, up to the first call of AWS. Raises what Ray raises."""
    try:
        from ray.autoscaler._private.util import prepare_config, validate_config
    except ImportError:  # names that Ray keeps for itself
        pytest.skip("this Ray keeps its parser of cluster files elsewhere")
    prepared: dict[str, Any] = prepare_config(copy.deepcopy(document))
    validate_config(prepared)
    return prepared


@cache
def run_instances() -> Any:
    return botocore.session.get_session().get_service_model("ec2").operation_model("RunInstances").input_shape


def machine_problems(node: dict[str, Any]) -> str:
    """What EC2's RunInstances would not take, by the model that every client of AWS is made from."""
    shape = run_instances()
    request = {**node, "MinCount": 1, "MaxCount": 1}
    found = botocore.validate.ParamValidator().validate(request, shape)
    unknown = sorted(request.keys() - shape.members.keys() - RAYS_OWN)
    return str(found.generate_report()) + "".join(f"unknown: {name}" for name in unknown)


def every(path: Path) -> Any:
    return pytest.param(path, id=path.stem)


@pytest.mark.parametrize("path", map(every, LAUNCHER_FILES))
def test_ray_takes_the_file(path: Path) -> None:
    prepared = check(load(path))
    assert prepared["available_node_types"]["head"]["max_workers"] == 0


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"idle_timeout_minuts": 5}, jsonschema.ValidationError),
        ({"max_workers": "eight"}, Exception),
        ({"head_node_type": "hed"}, ValueError),
        ({"docker": {"imag": "a", "container_name": "b"}}, Exception),
        ({"provider": {"region": "eu-central-1"}}, Exception),
    ],
    ids=["misspelt key", "wrong type", "head that is not there", "misspelt key, deep", "no provider"],
)
def test_ray_sees_a_mistake(change: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        check({**load(CLUSTER / "aws" / "gpu-spot.yaml"), **change})


def test_ray_sees_a_misspelt_key_of_a_node() -> None:
    document = load(CLUSTER / "aws" / "gpu-spot.yaml")
    document["available_node_types"]["gpu-spot"]["min_worker"] = 0
    with pytest.raises(jsonschema.ValidationError):
        check(document)


@pytest.mark.parametrize("path", map(every, LAUNCHER_FILES))
def test_ec2_would_take_the_machines(path: Path) -> None:
    for node in load(path)["available_node_types"].values():
        assert machine_problems(node["node_config"]) == ""


@pytest.mark.parametrize(
    "change",
    [
        {"InstanceTyp": "m7i.large"},
        {"InstanceMarketOptions": {"MarketTyp": "spot"}},
        {"BlockDeviceMappings": [{"DeviceName": "/dev/sda1", "Ebs": {"VolumeSize": "100"}}]},
    ],
    ids=["misspelt", "misspelt, deep", "wrong type"],
)
def test_a_machine_that_ec2_would_refuse_is_seen(change: dict[str, Any]) -> None:
    node = load(CLUSTER / "aws" / "gpu-spot.yaml")["available_node_types"]["gpu-spot"]["node_config"]
    assert machine_problems({**node, **change}) != ""


def test_gpus_are_spot_and_go_when_idle_and_the_head_is_neither() -> None:
    document = load(CLUSTER / "aws" / "gpu-spot.yaml")
    head, worker = (document["available_node_types"][name] for name in ("head", "gpu-spot"))
    assert worker["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert "InstanceMarketOptions" not in head["node_config"]
    assert worker["min_workers"] == 0
    assert document["idle_timeout_minutes"] <= 30
    assert document["provider"]["cache_stopped_nodes"] is False
    assert (head["resources"], worker["resources"]["GPU"]) == ({"CPU": 0}, 1)


@pytest.mark.parametrize("path", map(every, LAUNCHER_FILES))
def test_no_secret_is_named_and_only_the_token_is_copied(path: Path) -> None:
    document = load(path)
    assert f"--env AWS_REGION={document['provider']['region']}" in document["docker"]["run_options"]
    assert document["file_mounts"] == {"/home/recbatch/.ray/auth_token": "~/.ray/auth_token"}
    assert not re.search(
        r"AKIA|aws_secret|RAY_AUTH_TOKEN=|password", path.read_text(encoding="utf-8"), re.IGNORECASE
    )
    for node in document["available_node_types"].values():
        assert node["node_config"]["IamInstanceProfile"].keys() == {"Name"}
        assert node["node_config"]["MetadataOptions"]["HttpTokens"] == "required"


@pytest.mark.parametrize("path", map(every, LAUNCHER_FILES))
def test_ray_is_started_with_options_that_it_has(path: Path) -> None:
    from ray.scripts.scripts import start

    known = {option for parameter in start.params for option in parameter.opts + parameter.secondary_opts}
    document = load(path)
    lines = document["head_start_ray_commands"] + document["worker_start_ray_commands"]
    starts = [line for line in lines if line.startswith("ray start ")]
    assert len(starts) == 2
    for line in starts:
        assert {word.partition("=")[0] for word in line.split() if word.startswith("--")} <= known
    assert "--dashboard-host=127.0.0.1" in starts[0]
    assert "--autoscaling-config=~/ray_bootstrap_config.yaml" in starts[0]
