"""What a manifest may look like, and the sentence that says why one may not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.store.manifest import ManifestError, check_together, parse, parse_all

EXAMPLES = Path(__file__).parents[2] / "examples"

POD = """\
apiVersion: v1
kind: Pod
metadata: {name: web}
spec:
  containers:
  - name: web
    args: ["80"]
"""


def problems(text: str) -> list[str]:
    with pytest.raises(ManifestError) as raised:
        parse(text, "shop.yaml")
    return list(raised.value.problems)


def service(spec: str) -> str:
    return f"apiVersion: v1\nkind: Service\nmetadata: {{name: web, namespace: shop}}\nspec: {spec}\n"


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("**/*.yaml")), ids=lambda path: path.name)
def test_every_example_is_a_good_manifest(path: Path) -> None:
    assert parse(path.read_text(), str(path))


def test_several_documents_and_empty_ones_between_them() -> None:
    names = [obj["metadata"]["name"] for obj in parse(f"---\n{POD}---\n---\n{POD.replace('web', 'db')}", "f")]
    assert names == ["web", "db"]


def test_a_namespaced_object_is_in_the_default_namespace_and_a_cluster_scoped_one_in_none() -> None:
    pod, node = parse(f"{POD}---\napiVersion: v1\nkind: Node\nmetadata: {{name: node1}}\n", "f")
    assert pod["metadata"]["namespace"] == "default"
    assert "namespace" not in node["metadata"]


def test_the_namespace_of_the_command_line_is_used_when_the_object_names_none() -> None:
    assert parse(POD, "f", "shop")[0]["metadata"]["namespace"] == "shop"


@pytest.mark.parametrize("indent", [None, 2, "\t"])
def test_json_is_as_good_as_yaml(indent: str | int | None) -> None:
    obj = parse(POD, "f")[0]
    obj["metadata"]["annotations"] = {"note": 'emoji \U0001f600 and "quotes"'}
    assert parse(json.dumps(obj, indent=indent), "f.json") == [obj]


def test_a_list_as_kubectl_prints_it_is_its_items() -> None:
    items = [parse(POD.replace("web", name), "f")[0] for name in ("a", "b")]
    assert parse(json.dumps({"apiVersion": "v1", "kind": "List", "items": items}), "f") == items


def test_text_stays_text() -> None:
    """As in Kubernetes: no dates, no sexagesimal numbers; null means absent."""
    pod = parse(POD.replace('"80"', "22:22, 2026-01-31, '010', yes-please"), "f")[0]
    assert pod["spec"]["containers"][0]["args"] == ["22:22", "2026-01-31", "010", "yes-please"]
    assert "labels" not in parse(POD.replace("{name: web}", "{name: web, labels: null}"), "f")[0]["metadata"]


def test_anchors_and_merge_keys_work() -> None:
    text = "x: &labels {app: web, tier: front}\n"
    with pytest.raises(ManifestError):
        parse(text, "f")
    pod = parse(POD.replace("{name: web}", "{name: web, annotations: &a {x: y}, labels: {<<: *a, app: web}}"), "f")[0]
    assert pod["metadata"]["labels"] == {"x": "y", "app": "web"}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("kind: [", "shop.yaml:2:1: "),
        ("a: b: c", "shop.yaml:1:5: mapping values are not allowed in this context"),
        ("a: 1\na: 2", "shop.yaml:2:1: the key a is there twice"),
        ("a: \x00", "shop.yaml:1:4: the character U+0000 is not allowed"),
        ("- 1", "shop.yaml:1:1: a document is a mapping with apiVersion, kind and metadata"),
        ("kind: Pod", "shop.yaml:1:1: Pod: apiVersion is missing"),
        ("apiVersion: v1", "shop.yaml:1:1: object: kind is missing"),
        ("apiVersion: v1\nkind: Pod", "shop.yaml:1:1: Pod: metadata is missing"),
        ("apiVersion: v1\nkind: Node\nmetadata: {}", "shop.yaml:3:11: Node: metadata: name is missing"),
        (
            "apiVersion: v1\nkind: Pad\nmetadata: {name: x}",
            "shop.yaml:2:7: Pad x: kind: unknown kind Pad (v1); known",
        ),
        (
            "apiVersion: apps/v1\nkind: Service\nmetadata: {name: x}",
            "shop.yaml:2:7: Service x: kind: Service has apiVersion v1, not apps/v1",
        ),
        (
            POD.replace("{name: web}", "{name: Web_1}"),
            "shop.yaml:3:18: Pod Web_1: metadata.name: 'Web_1' is not",
        ),
        (
            POD.replace("{name: web}", "{name: web, labels: {istio.io/use-waypoint: true}}"),
            'shop.yaml:3:55: Pod web: metadata.labels["istio.io/use-waypoint"]: must be text, not true',
        ),
        (
            POD.replace("{name: web}", "{name: web, labels: {app: a b}}"),
            "shop.yaml:3:37: Pod web: metadata.labels.app: 'a b' is not a label value",
        ),
        (POD.replace('"80"', "80"), "shop.yaml:7:12: Pod web: spec.containers[0].args[0]: must be text, not 80"),
        (
            service("{ports: [{port: http}]}"),
            "shop.yaml:4:23: Service shop/web: spec.ports[0].port: must be a whole number, not 'http'",
        ),
        (
            service("{ports: [{port: 70000}]}"),
            "shop.yaml:4:23: Service shop/web: spec.ports[0].port: must be a whole number at most 65535, not 70000",
        ),
        (service("{ports: [{name: http}]}"), "shop.yaml:4:16: Service shop/web: spec.ports[0]: port is missing"),
        (service("{ports: {port: 80}}"), "shop.yaml:4:15: Service shop/web: spec.ports: must be a list, not a mapping"),
        (
            service("{ports: [{port: 80}, {port: 81}]}"),
            "shop.yaml:4:16: Service shop/web: spec.ports[0]: name is missing",
        ),
        (
            service("{ports: [{port: 80, targetPort: -}]}"),
            "Service shop/web: spec.ports[0].targetPort: ",
        ),
        (service("{ports: [{port: 80}], clusterIP: 1.2.3}"), "spec.clusterIP: '1.2.3' is not an IP address"),
        (service("{type: Cluster}"), "spec.type: 'Cluster' is not one of the allowed values"),
        (service("{type: ExternalName}"), "spec.externalName: '' is not a host name"),
        (
            "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: s}\naddressType: IPv4\n"
            "endpoints: [{addresses: ['fd00::1']}]",
            "EndpointSlice s: endpoints[0].addresses[0]: fd00::1 is not of address type IPv4",
        ),
        (
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\nspec: {selector: {matchLabels: {a: b}}, "
            "template: {metadata: {labels: {a: c}}, spec: {containers: [{name: c}]}}}",
            "Deployment d: spec.selector.matchLabels: does not select the labels of spec.template.metadata.labels",
        ),
        ("[" * 100, "shop.yaml:1:66: nested more than 64 levels deep"),
        ("[" * 100_000, ": nested more than 64 levels deep"),
        ("a: !!python/object:os.system {}", "shop.yaml:1:4: the tag "),
    ],
)
def test_what_is_wrong_is_one_sentence_with_file_object_and_field(text: str, sentence: str) -> None:
    found = problems(text)
    assert sentence in found[0]
    assert "\n" not in found[0]


def test_all_problems_of_all_files_are_said_at_once() -> None:
    with pytest.raises(ManifestError) as raised:
        parse_all([("a.yaml", service("{type: X}")), ("b.yaml", "{"), ("c.yaml", POD), ("d.yaml", "kind: Pod")])
    assert [problem.partition(":")[0] for problem in raised.value.problems] == ["a.yaml", "b.yaml", "d.yaml"]


def test_the_same_object_twice_is_refused_with_both_places() -> None:
    assert problems(f"{POD}---\n{POD}") == ["shop.yaml:9: Pod default/web is already at shop.yaml:1"]
    with pytest.raises(ManifestError, match="Pod default/web is in the manifests twice"):
        check_together(parse(POD, "a") + parse(POD, "b"))


def test_a_small_text_cannot_become_a_huge_document() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    assert "a document of more than" in problems("\n".join(lines))[0]


def test_aliases_cannot_nest_deeper_than_text() -> None:
    lines = [f"a0: &a0 {'[' * 40}{']' * 40}", f"a1: {'[' * 40}*a0{']' * 40}"]
    assert "nested more than" in problems("\n".join(lines))[0]


def problems_of(text: str) -> tuple[str, ...]:
    try:
        parse(text, "f")
    except ManifestError as error:
        return error.problems
    return ()


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="ab:-[]{},&*!|>'\"\n\t #?%@`0", max_size=60) | st.text(max_size=60))
def test_any_text_is_objects_or_sentences(text: str) -> None:
    for problem in problems_of(text):
        assert problem.startswith("f:")


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda values: st.lists(values, max_size=4) | st.dictionaries(st.text(max_size=8), values, max_size=4),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(
    kind=st.sampled_from([("v1", "Pod"), ("v1", "Service"), ("discovery.k8s.io/v1", "EndpointSlice"), ("v1", "Node")]),
    metadata=st.fixed_dictionaries({"name": st.just("x") | _json}, optional={"labels": _json, "namespace": _json}),
    spec=st.fixed_dictionaries({}, optional={"ports": _json, "containers": _json, "clusterIP": _json}) | _json,
    rest=st.dictionaries(st.sampled_from(["endpoints", "addressType", "status"]), _json),
)
def test_any_object_is_accepted_or_said_what_is_wrong_with(kind, metadata, spec, rest) -> None:  # type: ignore[no-untyped-def]
    obj = {"apiVersion": kind[0], "kind": kind[1], "metadata": metadata, "spec": spec, **rest}
    for problem in problems_of(json.dumps(obj)):
        assert problem.startswith("f:")
