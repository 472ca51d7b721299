"""The test cloud's API: what it does as EC2 does, and the faults that it causes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import botocore.exceptions
import pytest

from tests.cloud.api import AMI, GROUP, KEY_NAME, PROFILE, SUBNET, CloudApi


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CloudApi]:
    with CloudApi(tmp_path_factory.mktemp("api")) as api:
        yield api


@pytest.fixture
def api(whole: CloudApi) -> Iterator[CloudApi]:
    yield whole
    whole.reset()
    whole.set(hide_seconds=0.0, honour_tokens=True, capacity=-1, pending_seconds=0.05)
    whole.clear()


def launch(api: CloudApi, **more: Any) -> list[str]:
    """Launch instances as the contract's manifest names things. Returns: their ids."""
    asked = {
        "ImageId": AMI,
        "InstanceType": "c7i.4xlarge",
        "SubnetId": SUBNET,
        "SecurityGroupIds": [GROUP],
        "KeyName": KEY_NAME,
        "IamInstanceProfile": {"Name": PROFILE},
        "MinCount": 1,
        "MaxCount": 1,
        **more,
    }
    answer = api.client().run_instances(**asked)
    return [i["InstanceId"] for i in answer["Instances"]]


def seen(api: CloudApi, *ids: str) -> list[dict[str, Any]]:
    """What DescribeInstances says."""
    answer = api.client().describe_instances(**({"InstanceIds": list(ids)} if ids else {}))
    return [i for r in answer["Reservations"] for i in r["Instances"]]


def code(error: pytest.ExceptionInfo[botocore.exceptions.ClientError]) -> str:
    return str(error.value.response["Error"]["Code"])


def test_an_instance_passes_through_its_states(api: CloudApi) -> None:
    api.set(pending_seconds=0.3)
    one, two = launch(api, MaxCount=2)
    first = seen(api, one)[0]
    assert first["State"]["Name"] == "pending"
    assert first["PrivateIpAddress"].startswith(f"127.{api.network}.")
    assert first["PrivateIpAddress"] != seen(api, two)[0]["PrivateIpAddress"]
    api.wait(lambda: seen(api, one)[0]["State"]["Name"] == "running", "it runs")
    ended = api.client().terminate_instances(InstanceIds=[one])["TerminatingInstances"][0]
    assert ended["CurrentState"]["Name"] == "shutting-down"
    api.wait(lambda: seen(api, one)[0]["State"]["Name"] == "terminated", "it ends")
    last = seen(api, one)[0]
    assert last["StateReason"]["Code"] == "Client.UserInitiatedShutdown"
    assert last["StateTransitionReason"].endswith("GMT)")
    api.forget(one)
    assert [i["InstanceId"] for i in seen(api)] == [two]
    assert api.leftovers() == [two]


def test_behind_the_back(api: CloudApi) -> None:
    spot, other = launch(api, MinCount=2, MaxCount=2, InstanceMarketOptions={"MarketType": "spot"})
    assert seen(api, spot)[0]["InstanceLifecycle"] == "spot"
    api.wait(lambda: seen(api, other)[0]["State"]["Name"] == "running", "it runs")
    api.take_spot(spot)
    api.stop(other)
    api.wait(lambda: seen(api, spot)[0]["State"]["Name"] == "terminated", "it ends")
    assert seen(api, spot)[0]["StateReason"]["Code"] == "Server.SpotInstanceTermination"
    api.wait(lambda: seen(api, other)[0]["State"]["Name"] == "stopped", "it stops")


def test_a_volume_is_attached_to_one_instance_only(api: CloudApi) -> None:
    client = api.client()
    one, two = launch(api, MaxCount=2)
    volume = client.create_volume(Size=8, AvailabilityZone="us-east-1a", VolumeType="gp3")
    name = volume["VolumeId"]
    api.wait(lambda: len(api.live()) == 2 and seen(api, two)[0]["State"]["Code"] == 16, "they run")
    client.attach_volume(VolumeId=name, InstanceId=one, Device="/dev/sdf")
    with pytest.raises(botocore.exceptions.ClientError) as error:
        client.attach_volume(VolumeId=name, InstanceId=two, Device="/dev/sdf")
    assert code(error) == "VolumeInUse"
    with pytest.raises(botocore.exceptions.ClientError) as error:
        client.delete_volume(VolumeId=name)
    assert code(error) == "VolumeInUse"
    api.wait(
        lambda: (
            client.describe_volumes(VolumeIds=[name])["Volumes"][0]["Attachments"][0]["State"]
            == "attached"
        ),
        "it is attached",
    )
    api.terminate(one)
    api.wait(lambda: api.volumes()[name]["state"] == "available", "it is free")
    client.attach_volume(VolumeId=name, InstanceId=two, Device="/dev/sdf")
    client.detach_volume(VolumeId=name)
    api.wait(lambda: api.volumes()[name]["state"] == "available", "it is free again")


def test_refusals_and_throttling(api: CloudApi) -> None:
    api.throttle("DescribeInstances", 2)
    api.refuse("RunInstances", "InsufficientInstanceCapacity", "none left")
    for _ in range(2):
        with pytest.raises(botocore.exceptions.ClientError) as error:
            seen(api)
        assert code(error) == "RequestLimitExceeded"
    assert seen(api) == []
    with pytest.raises(botocore.exceptions.ClientError) as error:
        launch(api)
    assert code(error) == "InsufficientInstanceCapacity"
    assert api.counts() == {"DescribeInstances": 3, "RunInstances": 1}
    api.capacity(2)
    assert len(launch(api, MaxCount=5)) == 2
    with pytest.raises(botocore.exceptions.ClientError) as error:
        launch(api)
    assert code(error) == "InsufficientInstanceCapacity"


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"ImageId": "ami-0123456789abcdef0"}, "InvalidAMIID.NotFound"),
        ({"SubnetId": "subnet-9"}, "InvalidSubnetID.NotFound"),
        ({"SecurityGroupIds": ["sg-9"]}, "InvalidGroup.NotFound"),
        ({"KeyName": "nobodys"}, "InvalidKeyPair.NotFound"),
    ],
)
def test_what_is_not_there(api: CloudApi, wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(botocore.exceptions.ClientError) as error:
        launch(api, **wrong)
    assert code(error) == said
    assert api.leftovers() == []


def test_an_answer_that_is_lost(api: CloudApi) -> None:
    api.lose_answer("RunInstances")
    with pytest.raises(botocore.exceptions.ConnectionClosedError):
        launch(api)
    assert len(api.live()) == 1
    api.cut_request("RunInstances")
    with pytest.raises(botocore.exceptions.ConnectionClosedError):
        launch(api)
    assert len(api.live()) == 1


def test_client_tokens(api: CloudApi) -> None:
    first = launch(api, ClientToken="b")
    assert launch(api, ClientToken="b") == first
    with pytest.raises(botocore.exceptions.ClientError) as error:
        launch(api, ClientToken="b", MaxCount=2)
    assert code(error) == "IdempotentParameterMismatch"
    api.terminate(*first)
    api.wait(lambda: not api.live(), "it ends")
    with pytest.raises(botocore.exceptions.ClientError) as error:
        launch(api, ClientToken="b")
    assert code(error) == "IdempotentInstanceTerminated"
    asked = {"Size": 8, "AvailabilityZone": "us-east-1a", "ClientToken": "v"}
    volumes = {api.client().create_volume(**asked)["VolumeId"] for _ in range(2)}
    assert len(volumes) == 1
    api.honour_tokens(False)
    assert launch(api, ClientToken="a") != launch(api, ClientToken="a")


def test_tags_that_are_seen_late(api: CloudApi) -> None:
    (one,) = launch(api)
    given = {"Resources": [one], "Tags": [{"Key": "a", "Value": "old"}]}
    api.client().create_tags(**given)
    api.hide_tags(60)
    asked = {"Filters": [{"Name": "tag:a", "Values": ["new"]}]}
    api.client().create_tags(Resources=[one], Tags=[{"Key": "a", "Value": "new"}])
    assert seen(api, one)[0]["Tags"] == [{"Key": "a", "Value": "old"}]
    assert api.client().describe_instances(**asked)["Reservations"] == []
    api.hide_tags(0)
    assert seen(api, one)[0]["Tags"] == [{"Key": "a", "Value": "new"}]
    assert api.client().describe_instances(**asked)["Reservations"] != []


def test_instances_that_never_run_or_are_ill(api: CloudApi) -> None:
    api.doom("Client.VolumeLimitExceeded", "Volume limit exceeded")
    lost, well = launch(api, MaxCount=2)
    api.wait(lambda: seen(api, lost)[0]["State"]["Name"] == "terminated", "it ends")
    assert seen(api, lost)[0]["StateReason"]["Code"] == "Client.VolumeLimitExceeded"
    api.wait(lambda: seen(api, well)[0]["State"]["Name"] == "running", "it runs")
    api.impair(well)
    (said,) = api.client().describe_instance_status(InstanceIds=[well])["InstanceStatuses"]
    assert said["SystemStatus"]["Status"] == said["InstanceStatus"]["Status"] == "impaired"


def test_what_is_new_cannot_be_seen_yet(api: CloudApi) -> None:
    seen(api)
    api.hide_new(1.0)
    begun = time.monotonic()
    (new,) = launch(api)
    assert seen(api) == []
    for call in (
        lambda: seen(api, new),
        lambda: api.client().terminate_instances(InstanceIds=[new]),
        lambda: api.client().create_tags(Resources=[new], Tags=[{"Key": "a", "Value": "b"}]),
    ):
        with pytest.raises(botocore.exceptions.ClientError) as error:
            call()
        assert code(error) == "InvalidInstanceID.NotFound"
    api.wait(lambda: [i["InstanceId"] for i in seen(api)] == [new], "it is seen")
    assert time.monotonic() - begun >= 1.0


def test_credentials_and_connections(api: CloudApi) -> None:
    assert api.client("sts").get_caller_identity()["Account"]
    api.expire_credentials()
    with pytest.raises(botocore.exceptions.ClientError) as error:
        seen(api)
    assert code(error) == "RequestExpired"
    with pytest.raises(botocore.exceptions.ClientError) as error:
        api.client("sts").get_caller_identity()
    assert code(error) == "ExpiredToken"
    api.expire_credentials(False)
    api.down()
    with pytest.raises(botocore.exceptions.EndpointConnectionError):
        seen(api)
    api.up()
    assert seen(api) == []
    api.slow("DescribeInstances", 0.2, times=1)
    begun = time.monotonic()
    seen(api)
    assert time.monotonic() - begun >= 0.2


def test_quotas(api: CloudApi) -> None:
    client = api.client("service-quotas")
    asked = {"ServiceCode": "ec2", "QuotaCode": "L-1216C47A"}
    assert client.get_service_quota(**asked)["Quota"]["Value"] == 1000
    api.quota("L-1216C47A", 8)
    assert client.get_service_quota(**asked)["Quota"]["Value"] == 8
