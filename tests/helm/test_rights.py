"""The README's table of rights is what the chart gives: no right without a reason, no reason without a right."""

from __future__ import annotations

from collections.abc import Iterator

from tests.helm import chart

Right = tuple[str, str, str, str, str]  # account, where, resource, name, verb
WHERE = {"ClusterRole": "cluster", "Role": "namespace"}


def given() -> Iterator[Right]:
    for each in chart.render():
        if each["kind"] not in WHERE:
            continue
        for rule in each["rules"]:
            for resource in rule["resources"]:
                group = rule["apiGroups"][0]
                name = f"{resource}.{group}" if group else resource
                for only in rule.get("resourceNames", [""]):
                    for verb in rule["verbs"]:
                        yield each["metadata"]["name"], WHERE[each["kind"]], name, only, verb


def told() -> Iterator[Right]:
    lines = (chart.CHART / "README.md").read_text().partition("## Rights")[2].partition("\n## ")[0].splitlines()
    for line in lines:
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) != 6 or cells[0] in ("account", "---"):
            continue
        account, where, resources, only, verbs, reason = cells
        assert reason, line
        for resource in resources.split(", "):
            for name in only.split(", "):
                yield from ((account, where, resource, name, verb) for verb in verbs.split(", "))


def test_the_table_is_what_the_chart_gives() -> None:
    assert sorted(told()) == sorted(given())


def test_nobody_may_do_everything() -> None:
    assert not [right for right in given() if "*" in right]


def test_each_role_is_bound_to_the_account_of_its_name_alone() -> None:
    objects = chart.render()
    for binding in (each for each in objects if each["kind"].endswith("RoleBinding")):
        name = binding["metadata"]["name"]
        assert binding["roleRef"]["name"] == name
        assert [(each["name"], each["namespace"]) for each in binding["subjects"]] == [(name, chart.NAMESPACE)]


def test_the_uninstallers_rights_exist_only_while_it_runs() -> None:
    found = [each for each in chart.render() if each["metadata"]["name"] == "ambit-uninstall"]
    for each in found:
        if each["kind"] == "ConfigMap":
            continue
        notes = each["metadata"]["annotations"]
        assert notes["helm.sh/hook"] == "pre-delete"
        assert "hook-succeeded" in notes["helm.sh/hook-delete-policy"]


def test_without_labels_to_remove_namespaces_are_not_to_be_written() -> None:
    role = chart.one(chart.render("uninstall.removeLabels=false"), "ClusterRole", "ambit-uninstall")
    assert [rule["resources"] for rule in role["rules"]] == [["nodes"], ["gatewayclasses"]]
