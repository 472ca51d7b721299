"""The controller's settings: ``config.yaml``, checked against ``crds/settings/schema.yaml``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cache
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType
from typing import Any

from controller.resources.environment import NAME, TemplateError, variables
from controller.resources.prices import ModelPrice, price_key
from controller.resources.schema import Schema, compile_schema
from controller.resources.yamldoc import Parsed, YamlError, parse
from controller.resources.yamlio import load_trusted

MAX_BYTES = 4 * 1024 * 1024
_NOTHING: Mapping[str, Any] = MappingProxyType({})


class SettingsError(Exception):
    """The settings cannot be used; the text names file, line, field and what is wrong."""


@dataclass(frozen=True, slots=True)
class EnvProfile:
    """A named set of variables for agents."""

    env: Mapping[str, str]
    """Values with ``${VAR}`` not yet filled in."""
    model: str = ""
    description: str = ""


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits that hold for everything that the controller does."""

    local_workers: int = 256
    infrastructure_retries: int = 10


@dataclass(frozen=True, slots=True)
class Http:
    """Where the controller listens."""

    enabled: bool = True
    host: str = ""
    """Empty: the home's own default."""
    port: int = 4000
    """0: any free one."""


@dataclass(frozen=True, slots=True)
class AwsSettings:
    """What manifests may ask of AWS, and what becomes of left-over machines."""

    endpoints: tuple[str, ...] | None = None
    """Endpoints besides AWS's own; None: the home's own default."""
    instance_profiles: tuple[str, ...] | None = None
    """Instance profiles; None: any."""
    remove_leftovers: bool = False


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything in ``config.yaml``; the defaults are those of an absent file."""

    model_pricing: Mapping[str, ModelPrice] = field(default_factory=lambda: _NOTHING)
    """By ``price_key``; these go before the built-in list."""
    instance_pricing: Mapping[str, Decimal] = field(default_factory=lambda: _NOTHING)
    """US dollars an hour."""
    env_profiles: Mapping[str, EnvProfile] = field(default_factory=lambda: _NOTHING)
    limits: Limits = field(default_factory=Limits)
    http: Http = field(default_factory=Http)
    approvals_by_verified: bool = False
    """Whether the cluster vouches for ``by`` of an Approval's decision."""
    file_roots: tuple[str, ...] = ()
    allowed_env: tuple[str, ...] = ()
    aws: AwsSettings = field(default_factory=AwsSettings)


@cache
def settings_schema() -> Schema:
    """The schema of the settings, ready for use."""
    return compile_schema(load_trusted((files("crds") / "settings" / "schema.yaml").read_text()))


def load(path: Path) -> Settings:
    """Read a settings file; one that does not exist or is empty gives the defaults.

    Raises: SettingsError.
    """
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except FileNotFoundError:
        return Settings()
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror}") from None
    if len(data) > MAX_BYTES:
        raise SettingsError(f"{path}: is larger than {MAX_BYTES // 2**20} MiB")
    try:
        return parse_settings(data.decode("utf-8-sig"), str(path))
    except UnicodeDecodeError:
        raise SettingsError(f"{path}: is not UTF-8 text") from None


def parse_settings(text: str, source: str) -> Settings:
    """Settings from their text; ``source`` is what errors name. Raises: SettingsError."""
    try:
        documents = [d for d in parse(text) if d.value is not None]
    except YamlError as error:
        raise SettingsError(f"{source}:{error.line}: {error.message}") from None
    if not documents:
        return Settings()
    if len(documents) > 1:
        raise SettingsError(f"{source}:{documents[1].line}: has more than one document")
    return _decode(_checked(documents[0], source))


def _checked(document: Parsed, source: str) -> dict[str, Any]:
    schema = settings_schema()
    value = schema.prepare(document.value)
    errors = schema.errors(value)
    if errors:
        lines = [f"{source}:{document.line_of(error.path)}: {error}" for error in errors]
        raise SettingsError("\n".join(lines))
    faults = [
        f"{source}:{document.line_of(path)}: {path}: {text}"
        for path, text in _profile_faults(value)
    ]
    if faults:
        raise SettingsError("\n".join(faults))
    result: dict[str, Any] = value
    _distinct_models(document, result, source)
    return result


def _distinct_models(document: Parsed, value: Mapping[str, Any], source: str) -> None:
    """Names of models that are one, or none, once case and punctuation are left out."""
    seen: dict[str, str] = {}
    for name in value.get("modelPricing", {}):
        key = price_key(name)
        where = f"{source}:{document.line_of(f'modelPricing.{name}')}: modelPricing.{name}"
        if not key:
            raise SettingsError(f"{where}: is no name of a model: it has no letter and no digit")
        if key in seen:
            raise SettingsError(
                f"{where}: is the same model as {seen[key]}: case and punctuation do not count"
            )
        seen[key] = name


def _profile_faults(value: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What is wrong with variables of profiles; the values are not told, they may be secret."""
    for profile, content in value.get("envProfiles", {}).items():
        for name, template in content["env"].items():
            path = f"envProfiles.{profile}.env.{name}"
            if not NAME.fullmatch(name):
                yield path, "is no name of a variable: letters, digits and _, no digit first"
            if "\0" in template:
                yield path, "has a zero byte, which no environment can hold"
            try:
                variables(template)
            except TemplateError as error:
                yield path, str(error)


def _decode(value: Mapping[str, Any]) -> Settings:
    limits, http = value.get("limits", {}), value.get("http", {})
    return Settings(
        model_pricing=_frozen(
            {price_key(k): _price(k, v) for k, v in value.get("modelPricing", {}).items()}
        ),
        instance_pricing=_frozen(
            {k: Decimal(v) for k, v in value.get("instancePricing", {}).items()}
        ),
        env_profiles=_frozen({k: _profile(v) for k, v in value.get("envProfiles", {}).items()}),
        limits=Limits(
            local_workers=limits["localWorkers"],
            infrastructure_retries=limits["infrastructureRetries"],
        ),
        http=Http(enabled=http["enabled"], host=http.get("host", ""), port=http["port"]),
        approvals_by_verified=value.get("approvals", {}).get("byIsVerified", False),
        file_roots=tuple(value.get("fileRoots", ())),
        allowed_env=tuple(value.get("allowedEnv", ())),
        aws=_aws(value.get("aws", {})),
    )


def _aws(value: Mapping[str, Any]) -> AwsSettings:
    def names(key: str) -> tuple[str, ...] | None:
        return tuple(value[key]) if key in value else None

    return AwsSettings(
        names("endpoints"), names("instanceProfiles"), value.get("removeLeftovers", False)
    )


def _frozen(value: dict[str, Any]) -> Mapping[str, Any]:
    return MappingProxyType(value)


def _price(model: str, value: Mapping[str, str]) -> ModelPrice:
    def price(name: str) -> Decimal | None:
        text = value.get(f"{name}TokensUsdPerM")
        return None if text is None else Decimal(text)

    return ModelPrice(
        input=Decimal(value["inputTokensUsdPerM"]),
        output=Decimal(value["outputTokensUsdPerM"]),
        cached_input=price("cachedInput"),
        cache_write=price("cacheWrite"),
        reasoning_output=price("reasoningOutput"),
        name=model,
    )


def _profile(value: Mapping[str, Any]) -> EnvProfile:
    return EnvProfile(
        env=MappingProxyType(dict(value["env"])),
        model=value.get("model", ""),
        description=value.get("description", ""),
    )
