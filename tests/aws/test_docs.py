"""docs/aws.md: its policy allows what is asked, its manifest is valid, no reason is missing."""

from __future__ import annotations

import json
import re
from pathlib import Path

import yaml

from controller.resources.admission import admit
from controller.resources.settings import parse_settings
from providers.aws_codes import RULES

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "aws.md").read_text()
SOURCES = "\n".join(path.read_text() for path in (ROOT / "providers").glob("aws_*.py"))


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, re.S | re.M)


def test_the_policy_allows_what_is_asked_and_nothing_more() -> None:
    [policy] = map(json.loads, blocks("json"))
    allowed = set()
    for statement in policy["Statement"]:
        actions = statement["Action"]
        allowed |= set(actions if isinstance(actions, list) else [actions])
    asked = re.findall(r'client\("([a-z0-9-]+)[^"]*"\)\.(?!get_paginator)(\w+)\(', SOURCES)
    asked += [("ec2", name) for name in re.findall(r'get_paginator\("(\w+)"\)', SOURCES)]
    asked += [("ec2", name) for name in re.findall(r'_change\(\s*"(\w+)"', SOURCES)]
    asked += [("ec2", name) for name in re.findall(r'_listed\(\s*"(\w+)"', SOURCES)]
    assert len(asked) > 15
    names = {
        f"{service.replace('-', '')}:{''.join(word.capitalize() for word in method.split('_'))}"
        for service, method in asked
    }
    # Who one is may always be asked; PassRole is part of a launch with a profile.
    assert allowed == names - {"sts:GetCallerIdentity"} | {"iam:PassRole"}


def test_the_manifest_is_valid() -> None:
    manifest, *_, settings = blocks("yaml")
    admit(yaml.safe_load(manifest), None)
    parse_settings(settings, "docs/aws.md")


def test_every_reason_is_described() -> None:
    reasons = {rule.reason for rule in RULES}
    reasons |= set(re.findall(r'_wrong\(\s*"(\w+)"', SOURCES))
    reasons |= set(re.findall(r'"((?:Credentials|Aws)[A-Z]\w+)"', SOURCES)) - {"AwsRefused"}
    reasons |= {"RegionNotFound", "PermissionDenied"}
    assert len(reasons) > 30
    assert not [reason for reason in sorted(reasons) if f"`{reason}`" not in TEXT]
