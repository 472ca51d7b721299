"""What EC2 says when it refuses or fails, as reasons that a person can act on.

Every message carries AWS's own code and words, the manifest's field where there is one, and what to
do.  The codes are those of EC2's "Error codes" page (API reference) and of botocore's exceptions;
what is not known here is shown as it is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from providers.aws_codes import RULES
from providers.base import OutcomeUnknown, ProviderError, ProviderUnreachable

FIELD = "spec.provider.aws"
_MAX_WORDS = 400


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that failed."""

    action: str
    """EC2's name of it: ``RunInstances``."""
    where: str
    """Region and endpoint, for messages."""
    effect: bool = False
    """Whether it changes anything."""
    sent: int = 1
    """How many requests went out for it, retries too."""


CREDENTIALS_MISSING = "CredentialsMissing"
CREDENTIALS_EXPIRED = "CredentialsExpired"
CREDENTIALS_REFUSED = "CredentialsRefused"
UNREACHABLE = "AwsUnreachable"
THROTTLED = "AwsThrottled"
_RENEW = (
    "the controller takes credentials from its own environment as boto3 does (variables, "
    "~/.aws, an instance's or a pod's role)"
)
_EXPIRED = re.compile(
    r"RequestExpired|ExpiredToken(?:Exception)?|TokenRefreshRequired|ExpiredTokenException"
)
_REFUSED = re.compile(
    r"AuthFailure|InvalidClientTokenId|UnrecognizedClient(?:Exception)?|SignatureDoesNotMatch"
    r"|InvalidAccessKeyId|MissingAuthenticationToken(?:Exception)?|IncompleteSignature"
    r"|InvalidSignatureException|InvalidToken|NotAuthorized"
)
_THROTTLED = re.compile(
    r"RequestLimitExceeded|Throttl\w*|RequestThrottled\w*|TooManyRequestsException|SlowDown"
    r"|EC2ThrottledException|PriorRequestNotComplete|BandwidthLimitExceeded"
)
_BROKEN = re.compile(
    r"Internal(?:Error|Failure|ServerError)|ServiceUnavailable|Unavailable|ServerInternal|5\d\d"
)
_DENIED = re.compile(r"UnauthorizedOperation|AccessDenied(?:Exception)?|Client\.Unauthorized\w*")
_AUTHORITY = re.compile(r"perform: ([a-z0-9-]+:\w+)")
_ENCODED = re.compile(r"\s*Encoded authorization failure message: \S+")


def said(text: str) -> str:
    """What AWS said, on one line, without what only AWS can read."""
    text = " ".join(_ENCODED.sub("", text).split())
    text = "".join(c if c.isprintable() else "?" for c in text)
    return text if len(text) <= _MAX_WORDS else f"{text[: _MAX_WORDS - 3]}..."


def code_of(error: BaseException) -> str:
    """AWS's own error code; empty where the error is none of AWS's answers."""
    response: Any = getattr(error, "response", None)
    if not isinstance(response, dict):
        return ""
    code = str((response.get("Error") or {}).get("Code") or "")
    plain = re.sub(r"[^A-Za-z0-9._:-]", "", code)[:80] or "NoCode"
    return plain.removeprefix("Client.").removeprefix("Server.")


def words_of(error: BaseException) -> str:
    """What AWS's answer said; or the error itself."""
    response: Any = getattr(error, "response", None)
    if isinstance(response, dict):
        return said(str((response.get("Error") or {}).get("Message") or ""))
    return said(str(error))


def is_denied(error: BaseException) -> bool:
    """Whether the credentials' owner may not do this."""
    return bool(_DENIED.fullmatch(code_of(error)))


def is_credentials(error: BaseException) -> bool:
    """Whether other credentials might help."""
    code = code_of(error)
    return bool(_EXPIRED.fullmatch(code) or _REFUSED.fullmatch(code)) or (
        _local_credentials(error) is not None
    )


def trouble(error: BaseException, asked: Asked) -> ProviderError:
    """The error that a failed request is.

    Args:
        error: what boto3 raised.
        asked: the request.

    A request that only asks leaves nothing known, so it is always ``ProviderUnreachable``.
    """
    code = code_of(error)
    if not code:
        return _no_answer(error, asked)
    head = f"{asked.action} in {asked.where}: {code}: {words_of(error) or 'no more was said'}"
    known = _of_credentials(code, head)
    if known is not None:
        return known
    if _THROTTLED.fullmatch(code):
        return ProviderUnreachable(
            THROTTLED, f"{head}: too many requests of this account; it is tried again"
        )
    status = _status(error)
    if _BROKEN.fullmatch(code) or status >= 500:
        mild = "InsufficientInstanceCapacity" in code or "Capacity" in code
        if not mild:
            kind = OutcomeUnknown if asked.effect else ProviderUnreachable
            return kind(UNREACHABLE, f"{head}: AWS itself fails; it is tried again")
    refused = _refused(code, head, words_of(error), asked)
    if asked.effect:
        return refused
    return ProviderUnreachable(refused.reason, str(refused))


def _status(error: BaseException) -> int:
    response: Any = getattr(error, "response", None) or {}
    return int((response.get("ResponseMetadata") or {}).get("HTTPStatusCode") or 0)


def _of_credentials(code: str, head: str) -> ProviderError | None:
    if _EXPIRED.fullmatch(code):
        return ProviderUnreachable(
            CREDENTIALS_EXPIRED,
            f"{head}: renew them; {_RENEW}. They are read again by themselves; variables of its "
            "environment only when it is started anew. If they are fresh, set this machine's clock",
        )
    if _REFUSED.fullmatch(code):
        return ProviderUnreachable(
            CREDENTIALS_REFUSED, f"{head}: give the controller credentials that are valid; {_RENEW}"
        )
    return None


def _refused(code: str, head: str, words: str, asked: Asked) -> ProviderError:
    if _DENIED.fullmatch(code):
        named = _AUTHORITY.search(words)
        action = named.group(1) if named else f"ec2:{asked.action}"
        return ProviderError(
            "PermissionDenied",
            f"{head}: allow {action} to the controller's credentials (docs/aws.md has the policy)",
        )
    for rule in RULES:
        if re.fullmatch(rule.codes, code) and (
            not rule.words or re.search(rule.words, words, re.IGNORECASE)
        ):
            field = f"{FIELD}.{rule.field}: " if rule.field else ""
            return ProviderError(rule.reason, f"{head}: {field}{rule.what}")
    own = re.sub(r"[^A-Za-z0-9]", "", code) or "AwsRefused"
    reason = own if own[0].isalpha() else "AwsRefused"
    return ProviderError(
        reason, f"{head}: {FIELD}: change what AWS names there, or ask whoever runs this account"
    )


def _local_credentials(error: BaseException) -> str | None:
    """What is wrong with our credentials before anything is sent; None: something else is."""
    from botocore import exceptions as known

    if isinstance(error, (known.NoCredentialsError, known.NoAuthTokenError)):
        return CREDENTIALS_MISSING
    if isinstance(error, (known.SSOTokenLoadError, known.UnauthorizedSSOTokenError,
                          known.TokenRetrievalError)):  # fmt: skip
        return CREDENTIALS_EXPIRED
    refused = (
        known.PartialCredentialsError,
        known.CredentialRetrievalError,
        known.ProfileNotFound,
        known.ConfigParseError,
        known.SSOError,
        known.MetadataRetrievalError,
        known.RefreshWithMFAUnsupportedError,
        known.InvalidConfigError,
        known.UnknownCredentialError,
    )
    return CREDENTIALS_REFUSED if isinstance(error, refused) else None


def _no_answer(error: BaseException, asked: Asked) -> ProviderError:
    """No answer of AWS's."""
    from botocore import exceptions as known

    words = f"{asked.action} in {asked.where}: {said(str(error)) or type(error).__name__}"
    reason = _local_credentials(error)
    if reason is not None:
        return ProviderUnreachable(reason, f"{words}: {_RENEW}; there are none that can be used")
    if isinstance(error, known.NoRegionError | known.InvalidRegionError):
        return ProviderError("RegionNotFound", f"{words}: {FIELD}.region: give a region of AWS's")
    if isinstance(error, known.ParamValidationError):
        return ProviderError("LaunchRefused", f"{words}: {FIELD}: change what it names")
    unsent = (
        known.EndpointConnectionError,
        known.ConnectTimeoutError,
        known.ProxyConnectionError,
        known.SSLError,
        NotSent,
    )
    if asked.effect and not (isinstance(error, unsent) and asked.sent <= 1):
        return OutcomeUnknown(
            UNREACHABLE, f"{words}: no answer came, so it may have been done; it is looked at"
        )
    return ProviderUnreachable(
        UNREACHABLE,
        f"{words}: no answer could be had; it is tried again. {FIELD}.region and endpointUrl say "
        "where, and the controller's machine must reach it (proxies are taken from HTTPS_PROXY)",
    )


class NotSent(Exception):
    """A request was not sent, because its time was over or we are closing."""
