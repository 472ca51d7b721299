"""EC2's codes of refusals, and what each means: a reason, the manifest's field, what to do.

The codes are those of EC2's "Error codes" page (API reference), the words those that it is known to
say with them.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rule:
    """What one kind of refusal means."""

    codes: str
    """A regular expression that matches a whole code."""
    reason: str
    what: str
    """What to do."""
    field: str = ""
    """Below ``spec.provider.aws``."""
    words: str = ""
    """A regular expression that must be found in what was said, where the code does not tell."""


RULES: tuple[Rule, ...] = (
    Rule(
        r"InvalidAMIID\.\w+|InvalidAMIName\.\w+",
        "ImageNotFound",
        "give the id of a machine image that is available in this region and may be launched by "
        "this account (`aws ec2 describe-images --image-ids ID`)",
        "amiId",
    ),
    Rule(
        r"InvalidSubnetID\.\w+|InvalidSubnet\.\w+|InvalidSubnet",
        "SubnetNotFound",
        "give the id of a subnet of this region and account (`aws ec2 describe-subnets`)",
        "subnetId",
    ),
    Rule(
        r"InsufficientFreeAddressesInSubnet|PrivateIpAddressLimitExceeded",
        "SubnetFull",
        "the subnet has no more free addresses: give a larger one, or fewer instances",
        "subnetId",
    ),
    Rule(
        r"InvalidParameter\w*",
        "SecurityGroupMismatch",
        "give security groups of the subnet's own VPC",
        "securityGroupIds",
        words=r"belong to different networks|security group.{0,80}(?:vpc|network)",
    ),
    Rule(
        r"InvalidGroup\w*\.\w+|InvalidSecurityGroupID\.\w+|InvalidSecurityGroup\.\w+",
        "SecurityGroupNotFound",
        "give ids of security groups of this region (`aws ec2 describe-security-groups`)",
        "securityGroupIds",
    ),
    Rule(
        r"SecurityGroupsPer(?:Instance|Interface)LimitExceeded|SecurityGroupLimitExceeded",
        "QuotaExceeded",
        "give fewer security groups",
        "securityGroupIds",
    ),
    Rule(
        r"InvalidKeyPair\.\w+|InvalidKey\.\w+",
        "KeyPairNotFound",
        "give the name of a key pair of this region (`aws ec2 describe-key-pairs`), or leave it "
        "out if the image lets the key in by itself",
        "keyName",
    ),
    Rule(
        r"InvalidIamInstanceProfile\w*(?:\.\w+)?|NoSuchEntity",
        "InstanceProfileNotFound",
        "give the name or ARN of an instance profile of this account",
        "iamInstanceProfile",
    ),
    Rule(
        r"InvalidParameter\w*",
        "InstanceProfileNotFound",
        "give the name or ARN of an instance profile of this account "
        "(`aws iam list-instance-profiles`); a role is not one",
        "iamInstanceProfile",
        words=r"iam instance profile|iamInstanceProfile",
    ),
    Rule(
        r"InvalidInstanceType(?:\.\w+)?",
        "InstanceTypeNotFound",
        "give an instance type of this region (`aws ec2 describe-instance-types`)",
        "instanceType",
    ),
    Rule(
        r"InvalidParameter\w*",
        "InstanceTypeNotFound",
        "give an instance type of this region (`aws ec2 describe-instance-types`)",
        "instanceType",
        words=r"instance.?types?\b.{0,60}(?:invalid|exist|valid value)"
        r"|(?:invalid|following).{0,40}instance.?type|'InstanceType'",
    ),
    Rule(
        r"InvalidParameter\w*|Unsupported\w*|InvalidRequest",
        "ArchitectureMismatch",
        "give an image for the instance type's processor, or another instance type",
        "amiId",
        words=r"architecture",
    ),
    Rule(
        r"InvalidParameter\w*|InvalidAvailabilityZone|InvalidZone\.\w+",
        "ZoneNotFound",
        "give a zone of this region that is the subnet's (`aws ec2 describe-availability-zones`), "
        "or leave it out",
        "availabilityZone",
        words=r"availability.?zone",
    ),
    Rule(
        r"Unsupported",
        "InstanceTypeNotOffered",
        "give another instance type, or another zone (subnetId, availabilityZone): "
        "`aws ec2 describe-instance-type-offerings --location-type availability-zone` tells",
        "instanceType",
    ),
    Rule(
        r"InsufficientInstanceCapacity|InsufficientHostCapacity|InsufficientCapacity"
        r"|SpotCapacityNotAvailable|NoAvailableCapacity",
        "InsufficientInstanceCapacity",
        "AWS has no such machines left there at present; it is tried again. Another instance type "
        "or zone may have some",
        "instanceType",
    ),
    Rule(
        r"InstanceLimitExceeded|VcpuLimitExceeded|MaxSpotInstanceCountExceeded"
        r"|SpotInstanceCountExceeded|InsufficientReservedInstanceCapacity",
        "QuotaExceeded",
        "end other instances, set fewer replicas, or ask for a higher quota (Service Quotas, "
        "Amazon EC2: running On-Demand or Spot instances, in vCPUs)",
        "instanceType",
    ),
    Rule(
        r"SpotMaxPriceTooLow|InvalidSpotPrice\w*",
        "SpotUnavailable",
        "spot instances cost more than may be paid at present; it is tried again. Set spot: false "
        "for on-demand ones",
        "spot",
    ),
    Rule(
        r"VolumeLimitExceeded|MaxIOPSLimitExceeded|VolumeIOPSLimit|VolumeStorageLimitExceeded"
        r"|ActiveVolumeLimitExceeded",
        "VolumeQuotaExceeded",
        "delete volumes, ask for less, or ask for a higher quota (Service Quotas, Amazon EBS)",
        "volume",
    ),
    Rule(
        r"AttachmentLimitExceeded",
        "AttachmentRefused",
        "the machine bears no more volumes",
        "instanceType",
    ),
    Rule(
        r"InsufficientVolumeCapacity",
        "InsufficientVolumeCapacity",
        "AWS has no room for such a volume in the zone at present; it is tried again",
        "volume",
    ),
    Rule(
        r"UnknownVolumeType|InvalidVolume\.ZoneMismatch|InvalidIOPS\w*",
        "VolumeInvalid",
        "give size, type, iops and throughput that go together",
        "volume",
    ),
    Rule(
        r"InvalidParameter\w*",
        "DeviceNameInvalid",
        "give a device name that is free on the image: /dev/sdf to /dev/sdp",
        "deviceName",
        words=r"unixDevice|attachment point|device name|for parameter device",
    ),
    Rule(r"InvalidDevice\.\w+|InvalidBlockDeviceMapping", "DeviceNameInvalid",
          "give a device name that is free on the image: /dev/sdf to /dev/sdp", "deviceName"),
    Rule(
        r"InvalidParameter\w*|VolumeTypeNotAvailableInZone",
        "VolumeInvalid",
        "give size, type, iops and throughput that go together",
        "volume",
        words=r"volume|\biops\b|throughput|gib\b",
    ),
    Rule(r"InvalidVolume\.\w+|InvalidVolumeID\.\w+", "VolumeNotFound", "it is gone, or not ours"),
    Rule(r"VolumeInUse", "VolumeInUse", "the volume is attached to another machine"),
    Rule(r"InvalidAttachment\.\w+", "NotAttached", "the volume is not attached there"),
    Rule(
        r"InvalidInstanceID\.\w+|InvalidInstanceID|InvalidInstance\.\w+",
        "InstanceNotFound",
        "it is gone, or AWS does not show it yet",
    ),
    Rule(
        r"IncorrectState|IncorrectInstanceState|InvalidState\w*|VolumeNotAvailable\w*",
        "IncorrectState",
        "it is tried again when its state has changed",
    ),
    Rule(
        r"IdempotentParameterMismatch",
        "IdempotentParameterMismatch",
        "another request with this token was sent before; its instances are looked for by tags",
    ),
    Rule(
        r"IdempotentInstanceTerminated",
        "IdempotentInstanceTerminated",
        "the instances of this request have ended already; it is made anew",
    ),
    Rule(
        r"VPCIdNotSpecified|DefaultVpcDoesNotExist|MissingInput",
        "SubnetMissing",
        "this region has no default VPC: give a subnet",
        "subnetId",
    ),
    Rule(
        r"OperationNotPermitted|UnsupportedOperation",
        "OperationNotPermitted",
        "take off what protects it (termination or stop protection), or end it by hand",
    ),
    Rule(
        r"OptInRequired|RegionDisabledException|InvalidRegion\w*",
        "RegionNotEnabled",
        "enable the region for this account, subscribe to the image in the AWS Marketplace if "
        "that is what it asks for, or give another region",
        "region",
    ),
    Rule(
        r"PendingVerification|Blocked|AccountDisabled|DisabledAccount|SubscriptionRequired\w*",
        "AccountNotReady",
        "AWS holds this account back: what it says there must be settled with AWS",
    ),
    Rule(
        r"TagLimitExceeded|InvalidTagKey\.\w+|TagPolicyViolation",
        "TagsInvalid",
        "give tags that AWS and your organisation's tag policies accept, 50 at most with ours",
        "tags",
    ),
    Rule(
        r"InvalidParameter\w*",
        "TagsInvalid",
        "give tags that AWS accepts",
        "tags",
        words=r"\btags?\b",
    ),
    Rule(
        r"InvalidUserData\.\w+|RequestEntityTooLarge|\w*KmsKey\w*|InvalidKMSKey\.\w+",
        "LaunchRefused",
        "the account's settings for EC2 do not allow it",
    ),
)  # fmt: skip
