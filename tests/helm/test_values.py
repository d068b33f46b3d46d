"""What values.schema.json lets pass: every default, and nothing that could not work."""

from __future__ import annotations

import pytest

from tests.helm import chart

REFUSED = {
    "a misspelt name": ("node.worker=2", "worker"),
    "an unknown part": ("nope=1", "nope"),
    "a misspelt resource": ("node.resources.ztunnel.request.cpu=1", "request"),
    "no replica": ("controller.replicas=0", "replicas"),
    "a word for a number": ("controller.replicas=two", "replicas"),
    "too many workers": ("node.workers=999", "workers"),
    "a policy that Kubernetes does not know": ("images.pullPolicy=Sometimes", "pullPolicy"),
    "a tag with a blank": ("images.node.tag=a b", "tag"),
    "no trust domain": ("mesh.trustDomain=", "trustDomain"),
    "pins beside bpffs": ("node.paths.pins=/tmp/pins", "pins"),
    "pins with a dot": ("node.paths.pins=/sys/fs/bpf/a.b", "pins"),
    "a relative path": ("node.paths.run=run/ambit", "run"),
    "another port": ("controller.listen=0.0.0.0:15013", "listen"),
    "a log level of two words": ("node.logLevel=very loud", "logLevel"),
    "a word for yes": ("node.mountBpffs=perhaps", "mountBpffs"),
    "a percentage beyond all": ("node.maxUnavailable=200%", "maxUnavailable"),
    "no node at a time": ("node.maxUnavailable=0", "maxUnavailable"),
    "a log format that nobody writes": ("node.logFormat=xml", "logFormat"),
    "a path that climbs": ("node.paths.state=/var/lib/../ambit", "state"),
    "the root of the host": ("node.paths.run=/", "run"),
    "a namespace that cannot be": ("mesh.excludedNamespaces={Kube_System}", "excludedNamespaces"),
    "a secret without a name": ('images.pullSecrets={""}', "pullSecrets"),
    "a negative grace": ("node.terminationGracePeriodSeconds=-1", "terminationGracePeriodSeconds"),
    "a domain with a slash": ("mesh.clusterDomain=cluster/local", "clusterDomain"),
    "an operator that no toleration has": ("node.tolerations[0].operator=Perhaps", "operator"),
    "a label that no node can have": ("node.nodeSelector.disk={a}", "nodeSelector"),
    "a request of no quantity": ("node.resources.agent.requests.memory=lots", "memory"),
    "no image": ("images.controller.repository=", "repository"),
    "a time of zero": ("uninstall.timeoutSeconds=0", "timeoutSeconds"),
    "a level that is none": ("node.logLevel=verbose", "logLevel"),
    "a level of the controller that is none": ("controller.logLevel=info\\,store=loud", "logLevel"),
    "a number for a text": ("mesh.clusterId=1", "clusterId"),
    "a cluster whose name ends the line": ("mesh.clusterId=a b: c", "clusterId"),
    "a network that no label could say": ("mesh.network=a/b", "network"),
    "a domain with an empty part": ("mesh.trustDomain=a..b", "trustDomain"),
    "a class that cannot be": ("node.priorityClassName=High_One", "priorityClassName"),
    "an address of five parts": ("controller.listen=1.2.3.4.5:15012", "listen"),
    "a part that is taken away": ("node=null", "node"),
    "an image that is taken away": ("images.waypoint=null", "waypoint"),
    "a name that is taken away": ("images.node.repository=null", "repository"),
    "a path that is taken away": ("node.paths.run=null", "run"),
}
ACCEPTED = (
    "node.workers=4",
    "node.maxUnavailable=10%",
    "node.paths.cgroup=/sys/fs/cgroup/kubepods",
    "images.node.repository=registry.example:5000/mesh/node",
    "images.node.tag=v1.2.3-rc.1",
    "controller.listen=[::]:15012",
    "node.logLevel=info\\,ztunnel=debug",
    "node.nodeSelector.disk=ssd",
    "global.anything=1",
    "node.nodeSelector=null",
    "node.resources.agent=null",
    "node.priorityClassName=",
    "mesh.network=",
    "mesh.trustDomain=td_1.example.org",
    "controller.logLevel=off\\,store.kubernetes=trace",
)


@pytest.mark.parametrize(("value", "told"), REFUSED.values(), ids=list(REFUSED))
def test_a_wrong_value_is_refused_by_name(value: str, told: str) -> None:
    done = chart.template(value)
    assert done.returncode != 0
    assert told in done.stderr


@pytest.mark.parametrize("value", ACCEPTED)
def test_a_right_value_is_accepted(value: str) -> None:
    chart.text(value)


def test_lint_has_nothing_to_say_against_it() -> None:
    done = chart.run("lint", "--strict", str(chart.CHART))
    assert done.returncode == 0, done.stdout


def test_a_disruption_budget_needs_two_replicas() -> None:
    done = chart.template("controller.podDisruptionBudget=true")
    assert done.returncode != 0
    assert "controller.replicas" in done.stderr
    budget = chart.render("controller.podDisruptionBudget=true", "controller.replicas=2")
    assert chart.one(budget, "PodDisruptionBudget", "ambit-controller")["spec"]["minAvailable"] == 1
