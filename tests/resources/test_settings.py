"""The settings file: defaults, prices as decimals, and words for what is wrong."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest

from controller.resources.settings import Http, Limits, Settings, SettingsError, load, price_key

FULL = """
modelPricing:
  GPT-5.4:
    inputTokensUsdPerM: "1.25"
    cachedInputTokensUsdPerM: "0.125"
    outputTokensUsdPerM: "10"
instancePricing: {c7i.4xlarge: "0.714"}
envProfiles:
  gateway: {env: {ANTHROPIC_BASE_URL: "${GATEWAY_URL}"}, model: claude-sonnet-5-5}
limits: {localWorkers: 8}
http: {host: "::1", port: 0}
fileRoots: [/srv/texts]
allowedEnv: [OPENAI_API_KEY]
approvals: {byIsVerified: true}
"""


def test_no_file_and_an_empty_one_give_the_defaults(tmp_path: Path) -> None:
    assert load(tmp_path / "config.yaml") == Settings()
    (tmp_path / "config.yaml").write_text("# nothing\n")
    assert load(tmp_path / "config.yaml") == Settings()
    (tmp_path / "config.yaml").write_text("limits: {}\n")
    assert load(tmp_path / "config.yaml") == Settings()


def test_everything_is_read(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(FULL)
    found = load(file)
    price = found.model_pricing[price_key("gpt_5.4")]
    assert (price.input, price.cached_input) == (Decimal("1.25"), Decimal("0.125"))
    assert price.reasoning_output is None
    assert found.instance_pricing["c7i.4xlarge"] == Decimal("0.714")
    assert found.env_profiles["gateway"].env == {"ANTHROPIC_BASE_URL": "${GATEWAY_URL}"}
    assert found.env_profiles["gateway"].model == "claude-sonnet-5-5"
    assert found.limits == Limits(local_workers=8, infrastructure_retries=10)
    assert found.http == Http(enabled=True, host="::1", port=0)
    assert found.approvals_by_verified and not Settings().approvals_by_verified
    assert found.file_roots == ("/srv/texts",) and found.allowed_env == ("OPENAI_API_KEY",)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [", "config.yaml:2: is not YAML"),
        ("- 1\n", "config.yaml:1: must be an object"),
        ("limit: {}\n", 'config.yaml:1: limit: unknown field (did you mean "limits"?)'),
        ("limits: {}\n---\nlimits: {}\n", "config.yaml:3: has more than one document"),
        (
            "\nlimits:\n  localWorkers: 0\n",
            "config.yaml:3: limits.localWorkers: must be at least 1",
        ),
        ("fileRoots: [relative]\n", "fileRoots[0]"),
        ("http: {port: 65536}\n", "config.yaml:1: http.port: must be at most 65535"),
        ("http: {host: 'a b'}\n", "config.yaml:1: http.host"),
        (
            'modelPricing:\n  m: {inputTokensUsdPerM: "-1", outputTokensUsdPerM: "1"}\n',
            'config.yaml:2: modelPricing.m.inputTokensUsdPerM: "-1" is not valid',
        ),
        (
            'modelPricing:\n  m: {inputTokensUsdPerM: 1.5, outputTokensUsdPerM: "1"}\n',
            "write it in quotes",
        ),
        ("modelPricing:\n  m: {}\n", "outputTokensUsdPerM: is required"),
        (
            "envProfiles:\n  p:\n    env:\n      A: 'x'\n      B: '${B'\n",
            "config.yaml:5: envProfiles.p.env.B: character 1: ${ has no closing }",
        ),
        ("envProfiles: {p: {env: {A: a$b}}}\n", "character 2: a single $; write ${NAME}"),
        ("envProfiles: {p: {env: {1A: x}}}\n", "envProfiles.p.env.1A: is no name of a variable"),
        ('envProfiles: {p: {env: {A: "a\\0b"}}}\n', "envProfiles.p.env.A: has a zero byte"),
        ("envProfiles: {p: {env: {A: 5}}}\n", "envProfiles.p.env.A: must be a string"),
        (
            'modelPricing:\n  a.b: {inputTokensUsdPerM: "1", outputTokensUsdPerM: "1"}\n'
            '  gpt-5.4:\n    inputTokensUsdPerM: "1"\n    outputTokensUsdPerM: "NaN"\n',
            'config.yaml:5: modelPricing.gpt-5.4.outputTokensUsdPerM: "NaN" is not valid',
        ),
        (
            'modelPricing:\n  gpt-5.4: {inputTokensUsdPerM: "1", outputTokensUsdPerM: "1"}\n'
            '  GPT_5_4: {inputTokensUsdPerM: "2", outputTokensUsdPerM: "2"}\n',
            "config.yaml:3: modelPricing.GPT_5_4: is the same model as gpt-5.4",
        ),
        (
            'modelPricing:\n  "-": {inputTokensUsdPerM: "1", outputTokensUsdPerM: "1"}\n',
            "config.yaml:2: modelPricing.-: is no name of a model",
        ),
    ],
)
def test_what_is_wrong_is_told_with_file_and_line(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(text)
    with pytest.raises(SettingsError) as refusal:
        load(file)
    assert words in str(refusal.value)


def test_a_folder_and_bytes_are_no_settings(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read"):
        load(tmp_path)
    (tmp_path / "config.yaml").write_bytes(b"\xff\xfe")
    with pytest.raises(SettingsError, match="is not UTF-8"):
        load(tmp_path / "config.yaml")
