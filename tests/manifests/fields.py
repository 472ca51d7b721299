"""Which fields of a built-in object Kubernetes' newest API does not know.

The client library's classes are made from that API, and so tell it offline.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from kubernetes import client

CLASSES = {
    ("v1", "Namespace"): "V1Namespace",
    ("v1", "ServiceAccount"): "V1ServiceAccount",
    ("v1", "Service"): "V1Service",
    ("v1", "ConfigMap"): "V1ConfigMap",
    ("v1", "PersistentVolumeClaim"): "V1PersistentVolumeClaim",
    ("apps/v1", "Deployment"): "V1Deployment",
    ("networking.k8s.io/v1", "NetworkPolicy"): "V1NetworkPolicy",
    ("rbac.authorization.k8s.io/v1", "Role"): "V1Role",
    ("rbac.authorization.k8s.io/v1", "RoleBinding"): "V1RoleBinding",
    ("rbac.authorization.k8s.io/v1", "ClusterRole"): "V1ClusterRole",
    ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding"): "V1ClusterRoleBinding",
    ("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicy"): "V1ValidatingAdmissionPolicy",
    (
        "admissionregistration.k8s.io/v1",
        "ValidatingAdmissionPolicyBinding",
    ): "V1ValidatingAdmissionPolicyBinding",
}


def unknown_fields(obj: dict[str, Any]) -> list[str]:
    """Paths of the fields that do not exist, or hold another type than they should."""
    return list(_walk(obj, CLASSES[obj["apiVersion"], obj["kind"]], ""))


def _walk(value: Any, type_: str, path: str) -> Iterator[str]:
    listed = re.fullmatch(r"List\[(.*)\]", type_)
    mapped = re.fullmatch(r"Dict\[str, (.*)\]", type_)
    if listed or mapped:
        if not isinstance(value, list if listed else dict):
            yield f"{path}: is no {'list' if listed else 'mapping'}"
            return
        items = enumerate(value) if listed else value.items()
        for name, inner in items:
            yield from _walk(inner, (listed or mapped)[1], f"{path}.{name}")
    elif type_ in _PLAIN:
        if not isinstance(value, _PLAIN[type_]):
            yield f"{path}: {value!r} is no {type_}"
    elif hasattr(getattr(client, type_, None), "attribute_map"):
        yield from _walk_class(value, getattr(client, type_), path)
    else:
        assert type_ in ("object", "datetime", "bytes"), type_


def _walk_class(value: Any, cls: Any, path: str) -> Iterator[str]:
    if not isinstance(value, dict):
        yield f"{path}: is no mapping"
        return
    types = {name: cls.openapi_types[attribute] for attribute, name in cls.attribute_map.items()}
    for name, inner in value.items():
        if name in types:
            yield from _walk(inner, types[name], f"{path}.{name}")
        else:
            yield f"{path}.{name}: unknown"


_PLAIN = {"str": str, "bool": bool, "int": int, "float": (int, float)}
