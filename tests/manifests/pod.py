"""A pod without a kubelet: its containers as processes, with all that a Deployment says of them.

Read-only root, volumes, users and groups, environment, no capabilities, no new privileges, a
token of the ServiceAccount. What lacks: the image (this machine's files are the root), cgroups,
seccomp, and a network of its own.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.manifests.documents import ROOT, Document
from tests.manifests.space import Cluster

INIT = Path(__file__).with_name("pod_init.py")
STOP_SECONDS = 60.0
CERTIFICATE = "ca.crt"
USERS = (
    "controller:x:10001:10000::/var/lib/codeswarm/home:/usr/sbin/nologin\n"
    "worker:x:10002:10000::/home/worker:/bin/bash\n"
)
"""What the Dockerfile adds to /etc/passwd."""


def usable() -> bool:
    """Whether this process may make mounts of its own."""
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        return False
    probe = (
        "mount -t tmpfs tmpfs /mnt && mkdir /mnt/u /mnt/w /mnt/r && mount -t overlay overlay "
        "-o lowerdir=/,upperdir=/mnt/u,workdir=/mnt/w /mnt/r"
    )
    done = subprocess.run(
        ["unshare", "--mount", "--pid", "--fork", "sh", "-c", probe],
        capture_output=True,
        check=False,
    )
    return done.returncode == 0


class Pod:
    """The pod of a Deployment, on this machine.

    Args:
        deployment: what to run; ``documents`` has the ConfigMaps that it names.
        cluster: whose namespace it is in; its server gives the token.
        folder: where volumes, scratch folders and logs go. Volumes outlive the pod.
    """

    def __init__(
        self,
        deployment: Document,
        documents: tuple[Document, ...],
        cluster: Cluster,
        folder: Path,
    ) -> None:
        self.spec = deployment["spec"]["template"]["spec"]
        self._documents = documents
        self._cluster = cluster
        self._folder = folder
        self._group = self.spec["securityContext"]["fsGroup"]
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        for name in ("volumes", "scratch", "logs"):
            (folder / name).mkdir(parents=True, exist_ok=True)

    def start(self, *names: str) -> None:
        """Start the containers; all of them, if none is named."""
        places = {volume["name"]: self._place(volume) for volume in self.spec["volumes"]}
        for container in self.spec["containers"]:
            if not names or container["name"] in names:
                self._run(container, places)

    def _run(self, container: Document, places: dict[str, Path]) -> None:
        name = container["name"]
        scratch = self._folder / "scratch" / name
        scratch.mkdir(exist_ok=True)
        context = {**self.spec["securityContext"], **container["securityContext"]}
        assert context["readOnlyRootFilesystem"] and context["capabilities"] == {"drop": ["ALL"]}
        spec = {
            "scratch": str(scratch),
            "mounts": [
                {
                    "source": str(places[mount["name"]]),
                    "target": mount["mountPath"],
                    "readOnly": mount.get("readOnly", False),
                }
                for mount in container["volumeMounts"]
            ],
            "shown": sorted({sys.base_prefix, str(ROOT), sys.prefix}, key=len),
            "uid": context["runAsUser"],
            "gid": context["runAsGroup"],
            "groups": [context["fsGroup"]],
            "env": self._environment(container),
            "users": USERS,
            "argv": _argv(container),
        }
        file = self._folder / "scratch" / f"{name}.json"
        file.write_text(json.dumps(spec))
        with self.log(name).open("ab") as log:
            self.processes[name] = subprocess.Popen(
                ["unshare", "--mount", "--pid", "--fork", sys.executable, str(INIT), str(file)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def _environment(self, container: Document) -> dict[str, str]:
        server = json.loads(
            self._cluster.must("config", "view", "--minify", "--raw", "-o", "json")
        )["clusters"][0]["cluster"]["server"]
        host, _, port = server.removeprefix("https://").partition(":")
        environment = {
            "PATH": f"{sys.prefix}/bin:/usr/bin:/bin",
            "KUBERNETES_SERVICE_HOST": host,
            "KUBERNETES_SERVICE_PORT": port or "443",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONUNBUFFERED": "1",
        }
        known = {"metadata.name": "codeswarm-0"}
        for variable in container.get("env", ()):
            value = variable.get("value")
            if value is None:
                value = known[variable["valueFrom"]["fieldRef"]["fieldPath"]]
            environment[variable["name"]] = value
        return environment

    # --- volumes -------------------------------------------------------------------------------

    def _place(self, volume: Document) -> Path:
        place: Path = self._folder / "volumes" / volume["name"]
        place.mkdir(exist_ok=True)
        if "configMap" in volume:
            (found,) = [
                d for d in self._documents
                if (d["kind"], d["metadata"]["name"]) == ("ConfigMap", volume["configMap"]["name"])
            ]  # fmt: skip
            for name, text in found["data"].items():
                (place / name).write_text(text)
        elif "projected" in volume:
            self._project(volume["projected"], place)
        else:
            os.chown(place, 0, self._group)
            place.chmod(0o2775)
        return place

    def _project(self, projected: Document, place: Path) -> None:
        texts: dict[str, str] = {}
        for source in projected["sources"]:
            if "serviceAccountToken" in source:
                texts[source["serviceAccountToken"]["path"]] = self.token(
                    self.spec["serviceAccountName"]
                )
            for item in source.get("configMap", {}).get("items", ()):
                assert item["key"] == CERTIFICATE
                texts[item["path"]] = self._certificate()
            for item in source.get("downwardAPI", {}).get("items", ()):
                assert item["fieldRef"]["fieldPath"] == "metadata.namespace"
                texts[item["path"]] = self._cluster.namespace
        for name, text in texts.items():
            file = place / name
            file.write_text(text)
            os.chown(file, 0, self._group)
            file.chmod(0o640)

    def token(self, account: str) -> str:
        """A token of a ServiceAccount of the namespace."""
        body: dict[str, Any] = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "metadata": {"name": account, "namespace": self._cluster.namespace},
            "spec": {"expirationSeconds": 3600, "audiences": []},
        }
        path = f"/api/v1/namespaces/{self._cluster.namespace}/serviceaccounts/{account}/token"
        answer = self._cluster.must("create", "--raw", path, "-f", "-", text=json.dumps(body))
        return str(json.loads(answer)["status"]["token"])

    def _certificate(self) -> str:
        view = self._cluster.must("config", "view", "--minify", "--raw", "-o", "json")
        cluster = json.loads(view)["clusters"][0]["cluster"]
        return base64.b64decode(cluster["certificate-authority-data"]).decode()

    # --- the end -------------------------------------------------------------------------------

    def log(self, name: str) -> Path:
        """What a container says."""
        return self._folder / "logs" / f"{name}.log"

    def first(self, name: str) -> int:
        """The pid, out here, of what is pid 1 in a container."""
        pid = self.processes[name].pid
        found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return int(found[0]) if found else pid

    def kill(self, name: str) -> None:
        """SIGKILL to all of a container."""
        process = self.processes[name]
        if process.poll() is None:
            # With its pid 1 the whole namespace goes; the signal at its parent's death would not
            # do, since a change of user cancels that.
            os.kill(self.first(name), signal.SIGKILL)
        process.wait(STOP_SECONDS)
        del self.processes[name]

    def stop(self) -> dict[str, int]:
        """SIGTERM, as a kubelet ends a pod; the exit codes by container."""
        for name, process in self.processes.items():
            if process.poll() is None:
                os.kill(self.first(name), signal.SIGTERM)
        codes = {name: process.wait(STOP_SECONDS) for name, process in self.processes.items()}
        self.processes.clear()
        return codes

    def close(self) -> None:
        """End what still runs, at once."""
        for name in list(self.processes):
            self.kill(name)


def _argv(container: Document) -> list[str]:
    """The command line, with this environment's programs in place of the image's."""
    command = container.get("command") or ["tini", "--", "codeswarm"]
    assert command[:2] == ["tini", "--"]
    return [f"{sys.prefix}/bin/{command[2]}", *command[3:], *container["args"]]
