"""The chart brings the kinds that only Ambit's own CRDs define: without them nobody could write a policy."""

from __future__ import annotations

from controller.store.kinds import SECURITY_KINDS
from tests.helm import chart


def test_every_kind_of_policy_comes_with_the_chart() -> None:
    found = [each for each in chart.render() if each["kind"] == "CustomResourceDefinition"]
    served = {
        (each["spec"]["names"]["kind"], version["name"])
        for each in found
        for version in each["spec"]["versions"]
        if version["served"]
    }
    wanted = {(kind.kind, kind.version) for kind in SECURITY_KINDS}
    assert wanted <= served


def test_what_is_in_the_directory_of_crds_is_one_each() -> None:
    """Also where a file system, an archive or a package has no links."""
    files = sorted((chart.CHART / "crds").iterdir())
    assert files
    assert all(each.is_file() and not each.is_symlink() and each.suffix == ".yaml" for each in files)
