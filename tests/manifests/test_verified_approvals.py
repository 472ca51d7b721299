"""The policy that vouches for who decides: its expressions, by the evaluator of the CRDs."""

from __future__ import annotations

import pytest

from controller.resources.cel import evaluator
from tests.manifests.documents import MANIFESTS, built, load, overlay, pick

POLICY, BINDING = load(MANIFESTS / "components" / "verified-approvals" / "policy.yaml")
(RULE,) = POLICY["spec"]["validations"]


def run(expression, new, old, user="ada"):
    asked = {"request": {"id": "0"}}

    def approval(decision):
        return {"spec": asked if decision is None else {**asked, "decision": decision}}

    variables = {
        "object": approval(new),
        "oldObject": None if old == "none" else approval(old),
        "request": {"userInfo": {"username": user}},
    }
    return evaluator().compile(expression).execute(evaluator().Context(variables))


@pytest.mark.parametrize(
    ("new", "old", "allowed"),
    [
        (None, "none", True),
        (None, None, True),
        ({"value": "deny", "by": "ada"}, None, True),
        ({"value": "deny", "by": "ada"}, "none", True),
        ({"value": "deny", "by": "bob"}, None, False),
        ({"value": "deny", "by": "bob"}, "none", False),
        ({"value": "deny"}, None, False),
        ({"value": "deny", "by": ""}, None, False),
        ({"value": "deny", "by": "bob"}, {"value": "deny", "by": "bob"}, True),
    ],
)
def test_only_ones_own_name_may_be_given(new, old, allowed):
    assert run(RULE["expression"], new, old) is allowed


def test_the_message_says_what_would_be_right():
    told = run(RULE["messageExpression"], {"value": "deny"}, None, user="system:admin")
    assert told == "spec.decision.by must be the user name of who decides, here system:admin"


def test_the_policy_concerns_decisions_and_not_the_controllers_status():
    (resources,) = POLICY["spec"]["matchConstraints"]["resourceRules"]
    assert resources["resources"] == ["approvals"]
    assert set(resources["operations"]) == {"CREATE", "UPDATE"}
    assert POLICY["spec"]["failurePolicy"] == "Fail"
    assert BINDING["spec"]["policyName"] == POLICY["metadata"]["name"]
    assert BINDING["spec"]["validationActions"] == ["Deny"]


def test_an_overlay_with_it_builds(tmp_path):
    folder = overlay(
        tmp_path / "overlay",
        "resources: [{root}/manifests/base]\n"
        "components: [{root}/manifests/components/verified-approvals]\n",
    )
    policy = pick(built(folder), "ValidatingAdmissionPolicy")
    assert policy["metadata"]["name"] == POLICY["metadata"]["name"]
