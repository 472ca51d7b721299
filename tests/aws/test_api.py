"""What is asked of EC2 is what is meant; faults on the way come out as what they mean."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from providers.aws_api import Boto
from providers.aws_parse import ended_at
from providers.aws_requests import ROOT_OF_TAG, launch_request
from providers.aws_session import Limits
from providers.aws_values import Api, Wish
from providers.base import OutcomeUnknown, ProviderError, ProviderUnreachable
from tests.aws.conftest import QUICK, TAGS, Run, launch, wish_of
from tests.cloud.api import REGION, CloudApi


async def until(ec2: Boto, state: str, ids: list[str]) -> None:
    """Wait until instances are in a state."""
    async with asyncio.timeout(20):
        while True:
            found = {one.id: one for one in await ec2.instances(["uid-1"])}
            if all(found[one].state == state for one in ids):
                return
            await asyncio.sleep(0.02)


async def detached(ec2: Boto) -> None:
    """Wait until the volume is attached nowhere."""
    async with asyncio.timeout(20):
        while True:
            [volume] = await ec2.volumes(["uid-1"])
            if not volume.attached_to:
                return
            await asyncio.sleep(0.02)


def test_the_life_of_instances_and_a_volume(ec2: Boto, wish: Wish, run: Run[Any]) -> None:
    async def life() -> None:
        began = time.time()
        made = await ec2.run(wish, 3, token="t", tags=TAGS, user_data="#cloud-config\n", zone=None)
        assert len(made) == 3
        ids = [one.id for one in made]
        await until(ec2, "running", ids)
        one = next(i for i in await ec2.instances(["uid-1", "another"]) if i.id == ids[0])
        assert (one.type, one.zone, one.uid) == ("c7i.4xlarge", "us-east-1a", "uid-1")
        assert one.private_ip
        assert abs(one.launched_at - began) < 30
        volume = await ec2.create_volume(wish, one.zone, token="v", tags=TAGS)
        assert (volume.size_gib, volume.zone, volume.uid) == (8, "us-east-1a", "uid-1")
        await ec2.tag([volume.id, *ids], {"codeswarm.dev/in-use": "true"})
        await ec2.attach(volume.id, ids[0], "/dev/sdf")
        await ec2.attach(volume.id, ids[0], "/dev/sdf")
        with pytest.raises(ProviderError, match="VolumeInUse") as refused:
            await ec2.attach(volume.id, ids[1], "/dev/sdf")
        assert refused.value.reason == "VolumeInUse"
        [seen] = await ec2.volumes(["uid-1"])
        assert (seen.attached_to, seen.in_use, seen.kept) == (ids[0], True, False)
        with pytest.raises(ProviderError, match="VolumeInUse"):
            await ec2.delete_volume(volume.id)
        await ec2.detach(volume.id)
        await detached(ec2)
        await ec2.detach(volume.id)
        await ec2.delete_volume(volume.id)
        await ec2.delete_volume(volume.id)
        await ec2.terminate([*ids, "i-0123456789abcdef0"])
        await ec2.terminate(ids)
        await until(ec2, "terminated", ids)
        ended = (await ec2.instances(["uid-1"]))[0]
        assert ended.ended_at is not None
        assert abs(ended.ended_at - time.time()) < 30
        assert ended.state_reason == "Client.UserInitiatedShutdown"

    run(life())


def test_nothing_is_asked_for_no_swarm(ec2: Boto, run: Run[Any]) -> None:
    assert run(ec2.instances([])) == []
    assert run(ec2.volumes([])) == []
    assert ec2.calls == 0


def test_many_swarms_are_asked_for_in_few_requests(
    ec2: Boto, wish: Wish, api: CloudApi, run: Run[Any]
) -> None:
    run(launch(ec2, wish))
    api.reset()
    found = run(ec2.instances([*(f"other-{n}" for n in range(450)), "uid-1"]))
    assert len(found) == 1
    assert api.counts()["DescribeInstances"] == 3
    values = [
        name for name in api.requests("DescribeInstances")[0]["parameters"] if "Value" in name
    ]
    assert len(values) == 200


def test_long_answers_are_read_page_by_page(
    ec2: Boto, wish: Wish, api: CloudApi, run: Run[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("providers.aws_api.PAGE", 5)
    ids = [one for n in range(6) for one in run(launch(ec2, wish, token=f"t{n}"))]
    api.reset()
    assert {one.id for one in run(ec2.instances(["uid-1"]))} == set(ids)
    assert api.counts()["DescribeInstances"] >= 2


def test_requests_are_counted_with_their_repetitions(
    ec2: Boto, api: CloudApi, run: Run[Any]
) -> None:
    api.throttle("DescribeInstances", 2)
    run(ec2.instances(["uid-1"]))
    assert ec2.calls == ec2.by_action["DescribeInstances"] == api.counts()["DescribeInstances"] == 3


def test_throttling_without_end_is_said(ec2: Boto, api: CloudApi, run: Run[Any]) -> None:
    api.throttle("DescribeInstances", -1)
    with pytest.raises(ProviderUnreachable, match="RequestLimitExceeded") as refused:
        run(ec2.instances(["uid-1"]))
    assert refused.value.reason == "AwsThrottled"


def test_a_throttled_launch_is_sent_again(
    ec2: Boto, wish: Wish, api: CloudApi, run: Run[Any]
) -> None:
    api.throttle("RunInstances", 1)
    assert len(run(launch(ec2, wish, 2))) == 2
    assert len(api.live()) == 2


@pytest.mark.parametrize("fault", ["lose_answer", "broken"])
def test_a_launch_whose_answer_is_lost_is_not_sent_again(
    fault: str, ec2: Boto, wish: Wish, api: CloudApi, run: Run[Any]
) -> None:
    if fault == "broken":
        api.refuse("RunInstances", "InternalError", "An internal error has occurred", status=500)
    else:
        api.lose_answer("RunInstances")
    with pytest.raises(OutcomeUnknown, match="RunInstances") as lost:
        run(launch(ec2, wish, 2))
    assert lost.value.reason == "AwsUnreachable"
    assert api.counts()["RunInstances"] == 1
    if fault == "lose_answer":
        assert {one.id for one in run(ec2.instances(["uid-1"]))} == set(api.live())
        assert len(api.live()) == 2


def test_a_volume_whose_answer_is_lost_is_not_made_twice(
    ec2: Boto, wish: Wish, api: CloudApi, run: Run[Any]
) -> None:
    api.lose_answer("CreateVolume")
    with pytest.raises(OutcomeUnknown):
        run(ec2.create_volume(wish, "us-east-1a", token="v", tags=TAGS))
    assert len(run(ec2.volumes(["uid-1"]))) == 1


def test_what_may_be_sent_twice_is(ec2: Boto, wish: Wish, api: CloudApi, run: Run[Any]) -> None:
    ids = run(launch(ec2, wish))
    api.lose_answer("TerminateInstances")
    run(ec2.terminate(ids))
    assert api.counts()["TerminateInstances"] == 2


def test_nobody_listens(ec2: Boto, wish: Wish, api: CloudApi, run: Run[Any]) -> None:
    api.down()
    with pytest.raises(ProviderUnreachable, match="endpointUrl") as away:
        run(launch(ec2, wish))
    assert away.value.reason == "AwsUnreachable"
    api.up()
    assert run(launch(ec2, wish))


def test_an_answer_that_does_not_come_has_its_limit(
    api: CloudApi, wish: Wish, run: Run[Any]
) -> None:
    hasty = Boto(Api(REGION, api.url), Limits(connect=1.0, read=0.3, attempts=9, total=0.8))
    api.slow("DescribeInstances", 1.0)
    began = time.monotonic()
    with pytest.raises(ProviderUnreachable):
        run(hasty.instances(["uid-1"]))
    assert time.monotonic() - began < 5
    api.mend()
    run(hasty.close())


def test_the_event_loop_is_free_meanwhile(ec2: Boto, api: CloudApi, run: Run[Any]) -> None:
    run(ec2.instances(["uid-1"]))  # boto3 is loaded
    api.slow("DescribeInstances", 0.4, times=1)

    async def beats() -> int:
        count, look = 0, asyncio.create_task(ec2.instances(["uid-1"]))
        while not look.done():
            await asyncio.sleep(0.01)
            count += 1
        return count

    assert run(beats()) > 10


def test_new_instances_may_be_unknown_at_first(
    ec2: Boto, wish: Wish, api: CloudApi, run: Run[Any]
) -> None:
    api.hide_new(60)
    ids = run(launch(ec2, wish))
    assert run(ec2.instances(["uid-1"])) == []
    with pytest.raises(ProviderError, match="InvalidInstanceID") as unknown:
        run(ec2.tag(ids, {"a": "b"}))
    assert unknown.value.reason == "InstanceNotFound"
    api.hide_new(0)
    assert [one.id for one in run(ec2.instances(["uid-1"]))] == ids


def test_one_protected_instance_keeps_no_other_alive(
    ec2: Boto, wish: Wish, api: CloudApi, run: Run[Any]
) -> None:
    ids = run(launch(ec2, wish, 2))
    words = f"The instance '{ids[0]}' may not be terminated. Modify its 'disableApiTermination'"
    api.refuse("TerminateInstances", "OperationNotPermitted", words, 2)
    with pytest.raises(ProviderError, match=ids[0]):
        run(ec2.terminate(ids))
    api.wait(lambda: api.live() == [ids[0]], "the other one has ended")


def test_unknown_instances_keep_no_other_alive(
    ec2: Boto, wish: Wish, api: CloudApi, run: Run[Any]
) -> None:
    ids = run(launch(ec2, wish, 2))
    api.refuse("TerminateInstances", "InvalidInstanceID.NotFound", "one of them is unknown", 1)
    run(ec2.terminate(["i-0123456789abcdef0", *ids]))
    api.wait(lambda: api.live() == [], "both have ended")


def test_whether_an_instance_is_known_and_well(
    ec2: Boto, wish: Wish, api: CloudApi, run: Run[Any]
) -> None:
    ids = run(launch(ec2, wish, 2))
    assert run(ec2.exists(ids[0]))
    assert not run(ec2.exists("i-0123456789abcdef0"))
    assert run(ec2.impaired([])) == set()
    assert run(ec2.impaired([*ids, "i-0123456789abcdef0"])) == set()


def test_nothing_is_changed_without_permission(api: CloudApi, wish: Wish, run: Run[Any]) -> None:
    class Over(Exception):
        pass

    allowed = True

    def may() -> None:
        if not allowed:
            raise Over("the lease is over")

    boto = Boto(Api(REGION, api.url), QUICK, may)
    ids = run(launch(boto, wish))
    allowed = False
    for change in (
        launch(boto, wish, token="u"),
        boto.terminate(ids),
        boto.tag(ids, {"a": "b"}),
        boto.create_volume(wish, "us-east-1a", token="v", tags=TAGS),
        boto.attach("vol-1", ids[0], "/dev/sdf"),
        boto.detach("vol-1"),
        boto.delete_volume("vol-1"),
    ):
        with pytest.raises(Over):
            run(change)
    assert [one.id for one in run(boto.instances(["uid-1"]))] == ids
    assert api.live() == ids
    assert run(boto.volumes(["uid-1"])) == []
    run(boto.close())


def test_credentials_that_expire_are_read_again(
    api: CloudApi, run: Run[Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shared = tmp_path / "credentials"
    write = "[default]\naws_access_key_id = {}\naws_secret_access_key = y\n".format
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(shared))
    boto = Boto(Api(REGION, api.url), QUICK)

    with pytest.raises(ProviderUnreachable, match="environment") as missing:
        run(boto.instances(["uid-1"]))
    assert missing.value.reason == "CredentialsMissing"
    assert boto.calls == 0

    shared.write_text(write("AKIAFIRSTFIRSTFIRST1"))
    run(boto.instances(["uid-1"]))

    api.expire_credentials()
    with pytest.raises(ProviderUnreachable, match="renew") as expired:
        run(boto.instances(["uid-1"]))
    assert expired.value.reason == "CredentialsExpired"

    api.expire_credentials(False)
    api.refuse("DescribeInstances", "ExpiredToken", "The security token is expired")
    shared.write_text(write("AKIASECONDSECONDSEC2"))
    run(boto.instances(["uid-1"]))  # refused once, read again, and asked again
    run(boto.close())


@pytest.mark.parametrize("code", ["AuthFailure", "InvalidClientTokenId", "SignatureDoesNotMatch"])
def test_credentials_that_are_refused(code: str, ec2: Boto, api: CloudApi, run: Run[Any]) -> None:
    api.refuse("DescribeVolumes", code, "not validated", -1)
    with pytest.raises(ProviderUnreachable, match=code) as refused:
        run(ec2.volumes(["uid-1"]))
    assert refused.value.reason == "CredentialsRefused"


def test_closing_ends_its_threads(api: CloudApi, run: Run[Any]) -> None:
    boto = Boto(Api(REGION, api.url), QUICK)
    run(boto.instances(["uid-1"]))
    run(boto.close())
    deadline = time.monotonic() + 5
    while any(one.name.startswith("aws") for one in threading.enumerate()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    with pytest.raises(ProviderUnreachable):
        run(boto.instances(["uid-1"]))


def test_closing_waits_for_nobody(api: CloudApi, run: Run[Any]) -> None:
    boto = Boto(Api(REGION, api.url), Limits(read=20.0, threads=1))
    run(boto.instances(["uid-1"]))
    api.slow("DescribeInstances", 3.0)

    async def closed_meanwhile() -> list[str]:
        first = asyncio.create_task(boto.instances(["uid-1"]))
        second = asyncio.create_task(boto.instances(["uid-1"]))
        await asyncio.sleep(0.3)  # the first is on its way, the second waits for the thread
        await boto.close()
        with pytest.raises(ProviderUnreachable, match="closing"):
            await second
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        return [one.name for one in threading.enumerate() if one.name.startswith("aws")]

    began = time.monotonic()
    assert run(closed_meanwhile())
    assert time.monotonic() - began < 2.5
    deadline = time.monotonic() + 10
    while any(one.name.startswith("aws") for one in threading.enumerate()):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_no_more_threads_than_are_needed(api: CloudApi, run: Run[Any]) -> None:
    boto = Boto(Api(REGION, api.url), QUICK)

    async def several(count: int) -> int:
        await asyncio.gather(*(boto.instances(["uid-1"]) for _ in range(count)))
        return sum(one.name.startswith("aws-") for one in threading.enumerate())

    assert run(several(1)) == 1
    assert run(several(1)) == 1
    assert run(several(20)) == QUICK.threads
    run(boto.close())


def test_boto3_is_not_loaded_before_it_is_asked_for() -> None:
    import subprocess

    code = (
        "import sys, providers.aws_api as a, providers.aws_preflight, providers.aws_userdata\n"
        "a.Clouds().of(a.Api('us-east-1'))\n"
        "assert not {'boto3', 'botocore', 'cryptography'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)


def test_what_a_launch_asks_for(api: CloudApi) -> None:
    def ask(**more: Any) -> dict[str, Any]:
        wish = wish_of(api, **more)
        return launch_request(wish, 4, token="t", tags=TAGS, user_data="u", zone=wish.zone)

    asked = ask(iamInstanceProfile="codeswarm-worker", availabilityZone="us-east-1a")
    assert (asked["MinCount"], asked["MaxCount"], asked["ClientToken"]) == (1, 4, "t")
    assert asked["MetadataOptions"]["HttpTokens"] == "required"
    assert asked["MetadataOptions"]["HttpPutResponseHopLimit"] == 1
    assert asked["InstanceInitiatedShutdownBehavior"] == "terminate"
    assert asked["SubnetId"] == "subnet-1"
    assert asked["SecurityGroupIds"] == ["sg-1"]
    assert asked["IamInstanceProfile"] == {"Name": "codeswarm-worker"}
    assert asked["Placement"] == {"AvailabilityZone": "us-east-1a"}
    instance, volume = (
        {tag["Key"]: tag["Value"] for tag in one["Tags"]} for one in asked["TagSpecifications"]
    )
    assert instance == TAGS
    assert "codeswarm.dev/swarm-uid" not in volume  # a root volume is not the shared one
    assert volume[ROOT_OF_TAG] == "uid-1"

    public = ask(usePrivateIp=False, iamInstanceProfile="arn:aws:iam::1:instance-profile/x")
    [interface] = public["NetworkInterfaces"]
    assert interface["AssociatePublicIpAddress"] is True
    assert (interface["SubnetId"], interface["Groups"]) == ("subnet-1", ["sg-1"])
    assert not {"SubnetId", "SecurityGroupIds"} & set(public)
    assert public["IamInstanceProfile"] == {"Arn": "arn:aws:iam::1:instance-profile/x"}

    spot = ask(spot=True)
    assert spot["InstanceMarketOptions"]["SpotOptions"] == {
        "SpotInstanceType": "one-time",
        "InstanceInterruptionBehavior": "terminate",
    }
    assert "InstanceInitiatedShutdownBehavior" not in spot


def test_public_and_spot_instances_can_be_had(ec2: Boto, api: CloudApi, run: Run[Any]) -> None:
    run(launch(ec2, wish_of(api, usePrivateIp=False, spot=True)))
    [one] = run(ec2.instances(["uid-1"]))
    assert one.spot
    assert one.public_ip


def test_a_launch_that_is_repeated_is_the_same(
    ec2: Boto, wish: Wish, api: CloudApi, run: Run[Any]
) -> None:
    api.throttle("DescribeImages", 3)
    with pytest.raises(ProviderUnreachable):
        run(launch(ec2, wish))
    assert api.live() == []
    api.lose_answer("RunInstances")
    with pytest.raises(OutcomeUnknown):
        run(launch(ec2, wish))
    run(launch(ec2, wish))
    first, second = (one["parameters"] for one in api.requests("RunInstances"))
    assert first == second


def test_no_disk_outlives_its_machine(ec2: Boto, wish: Wish, api: CloudApi, run: Run[Any]) -> None:
    ids = run(launch(ec2, wish))
    run(until(ec2, "running", ids))
    run(ec2.terminate(ids))
    run(until(ec2, "terminated", ids))
    disks = api.client().describe_volumes(
        Filters=[{"Name": f"tag:{ROOT_OF_TAG}", "Values": ["uid-1"]}]
    )
    assert disks["Volumes"] == []


def test_the_time_of_an_end_is_read() -> None:
    assert ended_at("User initiated (2026-11-26 10:00:00 GMT)") == 1795687200.0
    assert ended_at("Server.SpotInstanceTermination: x (2026-11-26 10:00:00 UTC)") == 1795687200.0
    assert ended_at("") is ended_at("User initiated (2026-99-99 10:00:00 GMT)") is None
