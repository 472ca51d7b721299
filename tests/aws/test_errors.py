"""Everything that AWS can refuse has a reason, AWS's own code, the manifest's field and advice."""

from __future__ import annotations

import re
from typing import Any

import pytest
from botocore import exceptions as known
from hypothesis import given
from hypothesis import strategies as some

from providers.aws_api import Boto
from providers.aws_errors import Asked, trouble
from providers.base import OutcomeUnknown, ProviderError, ProviderUnreachable
from tests.aws.conftest import Run, launch, wish_of
from tests.cloud.api import CloudApi

REASON = re.compile(r"[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?")
DENIED = (
    "You are not authorized to perform this operation. User: arn:aws:iam::1:user/x is not "
    "authorized to perform: ec2:RunInstances on resource: y. Encoded authorization failure "
    "message: Zm9vYmFy"
)


def refused(code: str, words: str = "no", status: int = 400) -> known.ClientError:
    response = {
        "Error": {"Code": code, "Message": words},
        "ResponseMetadata": {"HTTPStatusCode": status},
    }
    return known.ClientError(response, "RunInstances")  # type: ignore[arg-type]


def judged(error: BaseException, **asked: Any) -> ProviderError:
    return trouble(error, Asked("RunInstances", "us-east-1", **{"effect": True, **asked}))


@pytest.mark.parametrize(
    ("code", "words", "reason", "field"),
    [
        (
            "InvalidAMIID.NotFound",
            "The image id '[ami-1]' does not exist",
            "ImageNotFound",
            "amiId",
        ),
        ("InvalidAMIID.Malformed", 'Invalid id: "ami-x"', "ImageNotFound", "amiId"),
        ("InvalidAMIID.Unavailable", "no", "ImageNotFound", "amiId"),
        (
            "InvalidSubnetID.NotFound",
            "The subnet ID 's' does not exist",
            "SubnetNotFound",
            "subnetId",
        ),
        ("InsufficientFreeAddressesInSubnet", "no", "SubnetFull", "subnetId"),
        ("InvalidGroup.NotFound", "no", "SecurityGroupNotFound", "securityGroupIds"),
        ("InvalidSecurityGroupID.NotFound", "no", "SecurityGroupNotFound", "securityGroupIds"),
        ("InvalidGroupId.Malformed", "no", "SecurityGroupNotFound", "securityGroupIds"),
        (
            "InvalidParameter",
            "Security group sg-1 and subnet subnet-1 belong to different networks.",
            "SecurityGroupMismatch",
            "securityGroupIds",
        ),
        (
            "InvalidKeyPair.NotFound",
            "The key pair 'x' does not exist",
            "KeyPairNotFound",
            "keyName",
        ),
        (
            "InvalidParameterValue",
            "Value (x) for parameter iamInstanceProfile.name is invalid. Invalid IAM Instance "
            "Profile name",
            "InstanceProfileNotFound",
            "iamInstanceProfile",
        ),
        (
            "InvalidParameterValue",
            "Invalid value 'c9.huge' for InstanceType.",
            "InstanceTypeNotFound",
            "instanceType",
        ),
        (
            "InvalidParameterValue",
            "The following supplied instance types do not exist: [c9.huge]",
            "InstanceTypeNotFound",
            "instanceType",
        ),
        ("InvalidInstanceType", "does not exist", "InstanceTypeNotFound", "instanceType"),
        (
            "InvalidParameterValue",
            "The architecture 'arm64' of the specified instance type does not match the "
            "architecture 'x86_64' of the specified AMI.",
            "ArchitectureMismatch",
            "amiId",
        ),
        (
            "InvalidParameterValue",
            "Invalid availability zone: [us-east-1z]",
            "ZoneNotFound",
            "availabilityZone",
        ),
        (
            "Unsupported",
            "Your requested instance type (c7i.large) is not supported in your requested "
            "Availability Zone (us-east-1e).",
            "InstanceTypeNotOffered",
            "instanceType",
        ),
        ("InsufficientInstanceCapacity", "no", "InsufficientInstanceCapacity", "instanceType"),
        ("InstanceLimitExceeded", "no", "QuotaExceeded", "instanceType"),
        ("VcpuLimitExceeded", "no", "QuotaExceeded", "instanceType"),
        ("MaxSpotInstanceCountExceeded", "no", "QuotaExceeded", "instanceType"),
        ("SpotMaxPriceTooLow", "no", "SpotUnavailable", "spot"),
        ("VolumeLimitExceeded", "no", "VolumeQuotaExceeded", "volume"),
        ("MaxIOPSLimitExceeded", "no", "VolumeQuotaExceeded", "volume"),
        (
            "InvalidParameterValue",
            "Volume iops of 90000 is too high; maximum is 80000.",
            "VolumeInvalid",
            "volume",
        ),
        (
            "InvalidParameterCombination",
            "The parameter throughput is not supported for gp2 volumes.",
            "VolumeInvalid",
            "volume",
        ),
        (
            "InvalidParameterValue",
            "Invalid value '/dev/sda1' for unixDevice. Attachment point is in use",
            "DeviceNameInvalid",
            "deviceName",
        ),
        ("InvalidParameterValue", "Tag keys starting with 'aws:'", "TagsInvalid", "tags"),
        ("VPCIdNotSpecified", "No default VPC for this user.", "SubnetMissing", "subnetId"),
        ("TagLimitExceeded", "no", "TagsInvalid", "tags"),
        ("OptInRequired", "You are not subscribed to this service", "RegionNotEnabled", "region"),
    ],
)
def test_a_field_that_is_wrong(code: str, words: str, reason: str, field: str) -> None:
    error = judged(refused(code, words))
    assert type(error) is ProviderError
    assert error.reason == reason
    assert f"{code}: {words}" in str(error)
    assert f"spec.provider.aws.{field}: " in str(error)


@pytest.mark.parametrize("code", ["IdempotentParameterMismatch", "IdempotentInstanceTerminated"])
def test_tokens_that_were_used(code: str) -> None:
    assert judged(refused(code)).reason == code


def test_a_permission_that_lacks_is_named_without_what_only_aws_can_read() -> None:
    error = judged(refused("UnauthorizedOperation", DENIED, 403))
    assert error.reason == "PermissionDenied"
    assert "allow ec2:RunInstances" in str(error)
    assert "Zm9vYmFy" not in str(error)


@pytest.mark.parametrize(
    ("error", "kind", "reason"),
    [
        (refused("RequestLimitExceeded", status=503), ProviderUnreachable, "AwsThrottled"),
        (refused("Throttling"), ProviderUnreachable, "AwsThrottled"),
        (refused("InternalError", status=500), OutcomeUnknown, "AwsUnreachable"),
        (refused("Unavailable", status=503), OutcomeUnknown, "AwsUnreachable"),
        (
            refused("InsufficientInstanceCapacity", status=500),
            ProviderError,
            "InsufficientInstanceCapacity",
        ),
        (refused("RequestExpired"), ProviderUnreachable, "CredentialsExpired"),
        (refused("AuthFailure", status=401), ProviderUnreachable, "CredentialsRefused"),
        (known.NoCredentialsError(), ProviderUnreachable, "CredentialsMissing"),
        (known.ProfileNotFound(profile="x"), ProviderUnreachable, "CredentialsRefused"),
        (
            known.UnauthorizedSSOTokenError(),
            ProviderUnreachable,
            "CredentialsExpired",
        ),
        (known.EndpointConnectionError(endpoint_url="x"), ProviderUnreachable, "AwsUnreachable"),
        (known.ConnectTimeoutError(endpoint_url="x"), ProviderUnreachable, "AwsUnreachable"),
        (known.ReadTimeoutError(endpoint_url="x"), OutcomeUnknown, "AwsUnreachable"),
        (known.ConnectionClosedError(endpoint_url="x"), OutcomeUnknown, "AwsUnreachable"),
        (RuntimeError("nobody foresaw it"), OutcomeUnknown, "AwsUnreachable"),
        (known.NoRegionError(), ProviderError, "RegionNotFound"),
        (known.ParamValidationError(report="x"), ProviderError, "LaunchRefused"),
    ],
)
def test_whether_it_was_done(error: Exception, kind: type[ProviderError], reason: str) -> None:
    found = judged(error)
    assert type(found) is kind
    assert found.reason == reason
    asked = judged(error, effect=False)
    assert type(asked) in (ProviderUnreachable, kind)
    assert not isinstance(asked, OutcomeUnknown)


def test_what_was_sent_once_may_have_been_done() -> None:
    error = known.EndpointConnectionError(endpoint_url="x")
    assert type(judged(error, sent=2)) is OutcomeUnknown


@given(code=some.text(), words=some.text(), effect=some.booleans())
def test_whatever_aws_says_is_fit_for_a_condition(code: str, words: str, effect: bool) -> None:
    error = judged(refused(code, words), effect=effect)
    assert REASON.fullmatch(error.reason)
    assert "\n" not in str(error)
    assert len(str(error)) < 2000


def test_fields_that_are_wrong_are_refused_by_ec2_itself(
    ec2: Boto, api: CloudApi, run: Run[Any]
) -> None:
    for more, reason in (
        ({"amiId": "ami-00000000"}, "ImageNotFound"),
        ({"subnetId": "subnet-9"}, "SubnetNotFound"),
        ({"securityGroupIds": ["sg-9"]}, "SecurityGroupNotFound"),
        ({"keyName": "nobody"}, "KeyPairNotFound"),
        ({"instanceType": "c9.huge"}, "InstanceTypeNotFound"),
    ):
        with pytest.raises(ProviderError) as error:
            run(launch(ec2, wish_of(api, **more)))
        assert (type(error.value), error.value.reason) == (ProviderError, reason), error.value
    api.capacity(0)
    with pytest.raises(ProviderError) as full:
        run(launch(ec2, wish_of(api)))
    assert full.value.reason == "InsufficientInstanceCapacity"
