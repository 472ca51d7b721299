"""``codeswarm controller run``: the controller of a cluster, in a pod or as a process."""

from __future__ import annotations

import logging
import sys

import click

from cli.errors import UNAVAILABLE, CliError
from cli.session import session, verb


@click.group("controller")
def controller() -> None:
    """The controller as a process of its own."""


@verb("run")
@click.option(
    "--kubernetes",
    is_flag=True,
    help="Serve a Kubernetes cluster. In a pod this is understood.",
)
@click.option("--all-namespaces", is_flag=True, help="Serve every namespace.")
@click.option(
    "--kubeconfig",
    metavar="FILE",
    help="How to reach the cluster.  [default: the pod's ServiceAccount, else $KUBECONFIG]",
)
@click.option("--context", metavar="NAME", help="A context of the kubeconfig.")
def run(
    *, kubernetes: bool, all_namespaces: bool, kubeconfig: str | None, context: str | None
) -> int:
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
    if not (kubernetes or kubeconfig or context or kube.in_pod()):
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
        kubeconfig=kubeconfig,
        context=context,
    )
    return kube.run(options, known.home)


controller.add_command(run)
