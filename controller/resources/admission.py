"""Admission: everything between a manifest and the store, in one call.

In file mode this is what the API server is in the other home: kind and version, metadata,
pruning of nulls, defaults, strict validation, CEL rules.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from controller.resources import cel, core, kinds
from controller.resources.errors import FieldError, Invalid, did_you_mean
from controller.resources.messages import type_name
from controller.resources.metadata import metadata_errors
from controller.resources.schema import object_schema, status_schema

__all__ = ["FieldError", "Invalid", "admit", "head_errors", "status_errors"]

_HEAD = ("apiVersion", "kind", "metadata")


def admit(
    obj: Mapping[str, Any], old: Mapping[str, Any] | None = None, *, rerun_rules: bool = True
) -> dict[str, Any]:
    """The object as it is to be stored: a copy without nulls, with defaults.

    A status is left out on creation and is the old one on an update, as for the API server.
    An unchanged spec is not checked again.

    Args:
        obj: the whole object as it is wished for.
        old: the stored object, on an update.
        rerun_rules: False leaves the CEL rules out, for a spec known to satisfy them.

    Raises: Invalid.
    """
    kind = _kind_of(obj)
    errors = head_errors(obj, old)
    if not kind.group:
        return _admit_core(obj, old, errors)
    schema = object_schema(kind.kind)
    new = schema.prepare({name: value for name, value in obj.items() if name != "status"})
    if old is not None and "status" in old:
        new["status"] = old["status"]
    spec_changed = old is None or new.get("spec") != old.get("spec")
    if old is None or spec_changed or new.keys() - old.keys():
        errors += schema.errors({k: v for k, v in new.items() if k != "status"})
    if not errors and spec_changed and rerun_rules:
        rules = cel.rules_of(kind.kind)
        errors += cel.check(rules, new, old) if rules else ()
    _raise(obj, errors)
    return _without_null_metadata(new)


def head_errors(obj: Mapping[str, Any], old: Mapping[str, Any] | None = None) -> list[FieldError]:
    """What is wrong with an object of a known kind besides its spec.

    Clients' statuses are not stored; unknown fields in them are errors all the same.
    """
    found = list(metadata_errors(obj.get("metadata")))
    kind = kinds.get(obj["kind"])
    if not kind.group or "status" not in obj:
        return found
    if old is not None and old.get("status") == obj["status"]:
        return found
    schema = status_schema(kind.kind)
    if schema is None:
        return [*found, FieldError("status", "unknown field", f"a {kind.kind} has no status")]
    return [*found, *schema.unknown(obj["status"], "status")]


def status_errors(kind: str, status: Any) -> list[FieldError]:
    """All that is wrong with a status; nothing for a kind without one. Raises: UnknownKind."""
    schema = status_schema(kind)
    if schema is None:
        return []
    return schema.errors(schema.prepare(status))


def _kind_of(obj: Any) -> kinds.Kind:
    if not isinstance(obj, Mapping):
        raise Invalid("Object", "", [FieldError("", f"must be an object, not {type_name(obj)}")])
    name, version = obj.get("kind"), obj.get("apiVersion")
    missing = [FieldError(f, "is required") for f in ("apiVersion", "kind") if not obj.get(f)]
    if missing:
        raise Invalid(str(name or "Object"), _name(obj), missing)
    known = {k.kind: k for k in kinds.kinds()}
    if not isinstance(name, str) or name not in known:
        message = f'unknown kind "{name}"'
        hint = did_you_mean(name, known) or f"known are {', '.join(known)}"
        raise Invalid(str(name), _name(obj), [FieldError("kind", message, hint)])
    kind = known[name]
    if version != kind.api_version:
        message = f'unknown version "{version}" of {kind.kind}'
        error = FieldError("apiVersion", message, f"it is {kind.api_version}")
        raise Invalid(kind.kind, _name(obj), [error])
    return kind


def _name(obj: Mapping[str, Any]) -> str:
    metadata = obj.get("metadata")
    name = metadata.get("name") if isinstance(metadata, Mapping) else None
    return name if isinstance(name, str) else ""


def _raise(obj: Mapping[str, Any], errors: list[FieldError]) -> None:
    if errors:
        raise Invalid(str(obj.get("kind")), _name(obj), list(dict.fromkeys(errors)))


def _admit_core(
    obj: Mapping[str, Any], old: Mapping[str, Any] | None, errors: list[FieldError]
) -> dict[str, Any]:
    new = core.prepare(obj)
    errors += core.errors(new)
    _raise(obj, errors)
    new = core.fold(new)
    _raise(obj, list(core.transition_errors(new, old)) if old is not None else [])
    return _without_null_metadata(new)


def _without_null_metadata(obj: dict[str, Any]) -> dict[str, Any]:
    metadata = {name: value for name, value in obj["metadata"].items() if value is not None}
    for field in ("labels", "annotations"):
        if None in metadata.get(field, {}).values():
            metadata[field] = {k: v for k, v in metadata[field].items() if v is not None}
    return {**obj, "metadata": metadata}
