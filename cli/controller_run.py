"""``codeswarm controller run``: the controller of a cluster, in a pod or as a process."""

from __future__ import annotations

import logging
import sys

import click

from cli.errors import UNAVAILABLE, CliError
from cli.session import common_options, session, verb


@click.group("controller", params=common_options())
def controller() -> None:
    """The controller as a process of its own."""


@verb("run")
@click.option(
    "--kubernetes",
    is_flag=True,
    help="Serve a Kubernetes cluster. In a pod this is understood.",
)
@click.option("--all-namespaces", is_flag=True, help="Serve every namespace.")
def run(*, kubernetes: bool, all_namespaces: bool) -> int:
    """Converge a cluster's swarms, projects and tasks until SIGTERM or Ctrl-C; workers run on.

    It serves one namespace: that of -n, else the pod's own or that of the kubeconfig's context.
    Only one controller works at a time; another one waits until it is gone.

    \b
    Examples:
      codeswarm controller run                                 in a pod
      codeswarm controller run --kubernetes --kubeconfig ~/.kube/config -n agents
      codeswarm controller run --kubernetes --all-namespaces
    """
    from controller.runtime import kube

    known = session()
    if not (kubernetes or known.in_cluster or kube.in_pod()):
        raise CliError(
            "this is no pod: say --kubernetes to serve a cluster, "
            "or use `codeswarm up` for the file-backed home",
            UNAVAILABLE,
        )
    if all_namespaces and known.namespace_given:
        raise click.UsageError("--all-namespaces and --namespace exclude each other")
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s"
    )
    logging.getLogger("kopf").setLevel(logging.WARNING)
    options = kube.Options(
        namespace=known.namespace if known.namespace_given else "",
        all_namespaces=all_namespaces,
        kubeconfig=known.kubeconfig,
        context=known.context,
    )
    return kube.run(options, known.home)


controller.add_command(run)
