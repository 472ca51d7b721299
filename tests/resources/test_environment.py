"""Profiles of variables: what ``${VAR}`` means, what is inherited, what is taken for a secret."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.resources.environment import (
    PROVIDER_VARIABLES,
    TemplateError,
    fill,
    inherited,
    is_credential,
    missing,
    variables,
)

OWN = {"A": "1", "B_2": "two", "EMPTY": "", "DOLLAR": "${A}"}


@pytest.mark.parametrize(
    ("template", "value"),
    [
        ("", ""),
        ("plain", "plain"),
        ("${A}", "1"),
        ("x${A}${B_2}y", "x1twoy"),
        ("$$", "$"),
        ("$${A}", "${A}"),
        ("$$$${A}$$", "$${A}$"),
        ("$$${A}", "$1"),
        ("${EMPTY}", ""),
        ("${DOLLAR}", "${A}"),
        ("}{", "}{"),
    ],
)
def test_variables_are_filled_in_once(template: str, value: str) -> None:
    assert fill(template, OWN) == value


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("hush$A", "character 5: a single $"),
        ("hush$", "character 5: a single $"),
        ("hush${A", "character 5: ${ has no closing }"),
        ("${", "character 1: ${ has no closing }"),
        ("${}", "between ${ and } stands the name"),
        ("${A:-hush}", "between ${ and } stands the name"),
        ("${1A}", "between ${ and } stands the name"),
        ("${A }", "between ${ and } stands the name"),
        ("${ÄB}", "between ${ and } stands the name"),
        ("$$$", "character 3: a single $"),
    ],
)
def test_what_is_not_well_formed_is_told_by_its_place(template: str, words: str) -> None:
    with pytest.raises(TemplateError) as fault:
        variables(template)
    assert words in str(fault.value) and "hush" not in str(fault.value)


@given(st.text())
def test_an_escaped_text_is_itself(text: str) -> None:
    assert fill(text.replace("$", "$$"), {}) == text


@given(st.text(alphabet="${}AB_1 x", max_size=20))
def test_a_template_is_refused_or_filled(template: str) -> None:
    try:
        names = variables(template)
    except TemplateError:
        return
    assert fill(template, dict.fromkeys(names, "")).count("${") <= template.count("$$")


def test_each_missing_variable_is_named_once_for_each_that_needs_it() -> None:
    templates = {"X": "${A}${NO}${NO}", "Y": "${NO}/${NOR}", "Z": "$$"}
    assert missing(templates, OWN) == [("X", "NO"), ("Y", "NO"), ("Y", "NOR")]


def test_each_runtime_inherits_its_own_providers_variables() -> None:
    own = {
        name: name.lower()
        for name in (
            "OPENAI_API_KEY", "ANTHROPIC_API_KEY", "CLAUDE_CODE_OAUTH_TOKEN", "HTTPS_PROXY",
            "no_proxy", "AWS_SECRET_ACCESS_KEY", "AWS_BEARER_TOKEN_BEDROCK", "GITHUB_TOKEN",
            "KUBECONFIG", "CODESWARM_HTTP_TOKEN", "PATH",
        )
    }  # fmt: skip
    common = {"HTTPS_PROXY", "no_proxy"}
    claude = {"ANTHROPIC_API_KEY", "CLAUDE_CODE_OAUTH_TOKEN", "AWS_BEARER_TOKEN_BEDROCK"}
    assert set(inherited("codex", own)) == {"OPENAI_API_KEY", *common}
    assert set(inherited("claude", own)) == claude | common
    assert set(inherited("mock", own)) == {"OPENAI_API_KEY"} | claude | common
    assert inherited("codex", own)["OPENAI_API_KEY"] == "openai_api_key"
    assert inherited("codex", {}) == {}


def test_no_credential_of_a_cloud_is_inherited() -> None:
    names = set().union(*PROVIDER_VARIABLES.values())
    assert not {name for name in names if name.startswith(("AWS_ACCESS", "AWS_SECRET", "GOOGLE"))}


@pytest.mark.parametrize(
    ("name", "value", "needed", "secret"),
    [
        ("OPENAI_API_KEY", "", (), True),
        ("GH_PAT", "", (), True),
        ("DATABASE_DSN", "", (), True),
        ("ANTHROPIC_CUSTOM_HEADERS", "", (), True),
        ("HTTPS_PROXY", "http://ada:pw@proxy:3128", (), True),
        ("HTTPS_PROXY", "http://proxy:3128/a@b", (), False),
        ("OPENAI_BASE_URL", "https://gateway.example.com/v1", ("GATEWAY_URL",), False),
        ("X", "", ("GATEWAY_TOKEN",), True),
        ("GIT_AUTHOR_NAME", "Ada", (), False),
        ("MAX_OUTPUT_TOKENS", "8192", (), False),
        ("KEYBOARD", "de", (), False),
    ],
)
def test_what_is_taken_for_a_secret(
    name: str, value: str, needed: tuple[str, ...], secret: bool
) -> None:
    assert is_credential(name, value, needed) is secret
