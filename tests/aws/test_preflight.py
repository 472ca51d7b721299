"""What is wrong is named before anything is paid for; what cannot be looked at is left out."""

from __future__ import annotations

from typing import Any

import pytest

from providers.aws_api import Boto
from providers.aws_check import Facts, offline, problems, volume_problem, warnings
from providers.aws_preflight import BAD_SECONDS, GOOD_SECONDS, Preflight
from providers.aws_quota import family, quota_code, sharing
from providers.aws_values import Api, VolumeWish, Wish
from providers.base import ProviderError, ProviderUnreachable
from tests.aws.conftest import QUICK, Run, launch, wish_of
from tests.cloud.api import CloudApi


class Clock:
    """A clock that tests move."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def preflight(clock: Clock) -> Preflight:
    return Preflight(clock)


def test_a_good_manifest_passes_and_is_not_looked_at_again_for_minutes(
    ec2: Boto, wish: Wish, preflight: Preflight, clock: Clock, run: Run[Any]
) -> None:
    run(preflight(ec2, wish, 4))
    asked = ec2.calls
    assert asked <= 12
    run(preflight(ec2, wish, 4))
    assert ec2.calls == asked
    clock.now += GOOD_SECONDS + 1
    run(preflight(ec2, wish, 4))
    assert ec2.calls > asked
    assert ec2.by_action["RunInstances"] == 0


@pytest.mark.parametrize(
    ("more", "reason", "code"),
    [
        ({"amiId": "ami-00000000"}, "ImageNotFound", "InvalidAMIID.NotFound"),
        ({"subnetId": "subnet-9"}, "SubnetNotFound", "InvalidSubnetID.NotFound"),
        ({"securityGroupIds": ["sg-9"]}, "SecurityGroupNotFound", "InvalidGroup.NotFound"),
        ({"keyName": "nobody"}, "KeyPairNotFound", "InvalidKeyPair.NotFound"),
        ({"instanceType": "c9.huge"}, "InstanceTypeNotFound", "InvalidInstanceType"),
        ({"instanceType": "c7g.large"}, "ArchitectureMismatch", "InvalidParameterValue"),
        ({"availabilityZone": "us-east-1b"}, "ZoneNotFound", "InvalidParameterValue"),
        ({"iamInstanceProfile": "nobody"}, "InstanceProfileNotFound", "NoSuchEntity"),
        (
            {"iamInstanceProfile": "arn:aws:iam::123456789012:role/x"},
            "InstanceProfileNotFound",
            "InvalidParameterValue",
        ),
        ({"deviceName": "/dev/sda1"}, "DeviceNameInvalid", "InvalidParameterValue"),
        ({"volume": {"type": "io2"}}, "VolumeInvalid", "InvalidParameterValue"),
        ({"tags": {"aws:x": "y"}}, "TagsInvalid", "InvalidParameterValue"),
        ({"tags": {"codeswarm.dev/home": "y"}}, "TagsInvalid", "InvalidParameterValue"),
    ],
)
def test_a_field_that_is_wrong(  # noqa: PLR0917
    more: dict[str, Any],
    reason: str,
    code: str,
    ec2: Boto,
    api: CloudApi,
    preflight: Preflight,
    run: Run[Any],
) -> None:
    with pytest.raises(ProviderError) as wrong:
        run(preflight(ec2, wish_of(api, **more), 1))
    assert type(wrong.value) is ProviderError
    assert wrong.value.reason == reason
    assert code in str(wrong.value)
    assert "spec.provider.aws." in str(wrong.value)
    assert next(iter(more)) in str(wrong.value)
    assert api.live() == []


def test_all_that_is_wrong_is_said_at_once_and_asked_again_soon(
    ec2: Boto, api: CloudApi, preflight: Preflight, clock: Clock, run: Run[Any]
) -> None:
    wish = wish_of(api, keyName="nobody", subnetId="subnet-9", volume={"type": "io1"})
    for _ in range(2):
        with pytest.raises(ProviderError, match=r"(?s)\(1\).*\(2\).*\(3\)"):
            run(preflight(ec2, wish, 1))
        asked = ec2.calls
    clock.now += BAD_SECONDS + 1
    with pytest.raises(ProviderError):
        run(preflight(ec2, wish, 1))
    assert ec2.calls > asked


def test_the_quota(
    ec2: Boto, wish: Wish, api: CloudApi, preflight: Preflight, run: Run[Any]
) -> None:
    run(launch(ec2, wish))  # 16 vCPUs run already
    api.wait(lambda: any(i["state"] == "running" for i in api.instances().values()), "it runs")
    api.quota("L-1216C47A", 47)
    try:
        run(preflight(ec2, wish, 1))
        with pytest.raises(ProviderError, match="VcpuLimitExceeded") as over:
            run(preflight(ec2, wish, 2))
        run(preflight(ec2, wish_of(api, spot=True), 2))
    finally:
        api.quota("L-1216C47A", 1000)
    assert over.value.reason == "QuotaExceeded"
    assert "2 x c7i.4xlarge need 32 vCPUs, 16 run already" in str(over.value)


@pytest.mark.parametrize(
    ("code", "reason"),
    [("InvalidClientTokenId", "CredentialsRefused"), ("ExpiredToken", "CredentialsExpired")],
)
def test_bad_credentials_are_said_first(  # noqa: PLR0917
    code: str,
    reason: str,
    ec2: Boto,
    wish: Wish,
    api: CloudApi,
    preflight: Preflight,
    run: Run[Any],
) -> None:
    api.refuse("GetCallerIdentity", code, "no", -1, status=403)
    with pytest.raises(ProviderUnreachable, match=code) as refused:
        run(preflight(ec2, wish, 1))
    assert refused.value.reason == reason
    assert not [action for action in ec2.by_action if action.startswith("Describe")]


def test_what_may_not_be_looked_at_is_left_out(
    ec2: Boto, wish: Wish, api: CloudApi, preflight: Preflight, run: Run[Any]
) -> None:
    api.refuse("*", "UnauthorizedOperation", "not authorized", -1, status=403)
    run(preflight(ec2, wish, 1))


def test_an_endpoint_without_sts_will_do(
    ec2: Boto, wish: Wish, api: CloudApi, preflight: Preflight, run: Run[Any]
) -> None:
    api.refuse("GetCallerIdentity", "InvalidAction", "there is none", -1)
    run(preflight(ec2, wish, 1))


def test_nobody_answers(
    ec2: Boto, wish: Wish, api: CloudApi, preflight: Preflight, run: Run[Any]
) -> None:
    api.down()
    with pytest.raises(ProviderUnreachable):
        run(preflight(ec2, wish, 1))
    api.up()
    run(preflight(ec2, wish, 1))
    api.throttle("DescribeImages", -1)
    preflight.forget()
    with pytest.raises(ProviderUnreachable, match="RequestLimitExceeded"):
        run(preflight(ec2, wish, 1))


def test_a_region_that_nobody_knows(
    monkeypatch: pytest.MonkeyPatch, wish: Wish, preflight: Preflight, run: Run[Any]
) -> None:
    # No other host is asked: the proxy that would be does not listen.
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    for region, reason in (("us-east-77", "RegionNotFound"), ("us-east-1", "AwsUnreachable")):
        boto = Boto(Api(region), QUICK)
        with pytest.raises(ProviderError) as wrong:
            run(preflight(boto, wish, 1))
        assert wrong.value.reason == reason
        with pytest.raises(ProviderUnreachable) as looking:
            run(boto.instances(["uid"]))
        assert looking.value.reason == reason
        run(boto.close())


@pytest.mark.parametrize(
    ("volume", "words"),
    [
        (VolumeWish(type="gp2", iops=3000), "iops is for"),
        (VolumeWish(type="gp2", throughput=200), "throughput is for"),
        (VolumeWish(type="io1"), "needs iops"),
        (VolumeWish(type="io1", iops=6000), "50 iops a GiB"),
        (VolumeWish(type="io2", iops=6000), ""),
        (VolumeWish(type="gp3", iops=2000), "at least 3000"),
        (VolumeWish(type="gp3", iops=60000), "500 iops a GiB"),
        (VolumeWish(type="gp3", throughput=1000), "0.25 MiB/s"),
        (VolumeWish(type="gp3", iops=4000, throughput=1000), ""),
        (VolumeWish(type="gp3", size_gib=8), ""),
        (VolumeWish(type="st1", size_gib=100), "at least 125"),
        (VolumeWish(type="gp2", size_gib=20000), "at most 16384"),
    ],
)
def test_volumes(volume: VolumeWish, words: str) -> None:
    found = volume_problem(volume)
    assert words in found
    assert bool(words) == bool(found)


@pytest.mark.parametrize("name", ["/dev/sdf", "/dev/sdp", "/dev/xvdf", "/dev/xvdba", "/dev/sdf1"])
def test_device_names_that_ec2_takes(name: str) -> None:
    wish = Wish(Api("us-east-1"), "ami-1", "m7i.large", "/shared", device=name)
    assert offline(wish) == []


def test_what_is_often_forgotten_is_mentioned() -> None:
    wish = Wish(Api("us-east-1"), "ami-1", "m7i.large", "/shared")

    def said(*rules: dict[str, Any], name: str = "ubuntu/images/hvm") -> str:
        return "\n".join(warnings(wish, Facts({"Name": name}, groups=[{"IpPermissions": rules}])))

    ssh = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22}
    nfs = {"IpProtocol": "tcp", "FromPort": 2000, "ToPort": 2100}
    assert "port 22" in said() and "port 2049" in said()
    assert "port 22" not in said(ssh) and "port 2049" in said(ssh)
    assert said(ssh, nfs) == ""
    assert said({"IpProtocol": "-1"}) == ""
    assert "ec2-user" in said(ssh, nfs, name="al2023-ami-2023.5")


def test_a_full_subnet_and_another_network() -> None:
    wish = Wish(Api("us-east-1"), "ami-1", "m7i.large", "/shared", subnet="subnet-1")
    subnet = {"VpcId": "vpc-1", "AvailableIpAddressCount": 3, "AvailabilityZone": "us-east-1a"}
    assert problems(wish, 3, Facts(subnet=subnet)) == []
    [full] = problems(wish, 4, Facts(subnet=subnet))
    assert full.reason == "SubnetFull"
    [other] = problems(wish, 3, Facts(subnet=subnet, groups=[{"VpcId": "vpc-2"}]))
    assert other.reason == "SecurityGroupMismatch"
    [away] = problems(wish, 3, Facts(subnet=subnet, zones=["us-east-1b"]))
    assert away.reason == "InstanceTypeNotOffered"


def test_families_of_quotas() -> None:
    assert family("c7i.4xlarge") == family("im4gn.large") == "standard"
    assert family("g5.xlarge") == family("gr6.4xlarge") == family("vt1.3xlarge") == "g"
    assert family("u7i-12tb.224xlarge") == "u"
    assert family("mac2.metal") == ""
    assert quota_code("p4d.24xlarge", spot=True) == "L-7212CCBC"
    assert quota_code("p5.48xlarge", spot=True) == ""
    running = [
        {"InstanceType": "c7i.large"},
        {"InstanceType": "c7i.large"},
        {"InstanceType": "m7g.large"},
        {"InstanceType": "g5.xlarge"},
        {"InstanceType": "c7i.large", "InstanceLifecycle": "spot"},
    ]
    assert sharing(running, "r7i.large", spot=False) == {"c7i.large": 2, "m7g.large": 1}
    assert sharing(running, "r7i.large", spot=True) == {"c7i.large": 1}
