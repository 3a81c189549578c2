"""The parts of tests.kubernetes that need no server, and its end without Go or time."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dev.paths import ROOT
from tests.cluster.adapters import label_selector, source_config
from tests.kubernetes.__main__ import LEFT_OUT
from tests.kubernetes.golang import (
    BUDGET_VARIABLE,
    BUILD_BYTES,
    MODULES,
    PROGRAMS,
    BuildFailed,
    Unbuilt,
    check_disk_space,
    fetched,
    module_version,
    required_go,
    version_numbers,
)

pytestmark = pytest.mark.dev


@pytest.mark.parametrize(
    ("written", "numbers"), [("go1.26.8", (1, 26, 8)), ("1.26", (1, 26)), ("go1.27rc1", (1, 27, 1)), ("", ())]
)
def test_versions_compare_by_their_numbers(written: str, numbers: tuple[int, ...]) -> None:
    assert version_numbers(written) == numbers


@pytest.mark.parametrize("name", sorted(PROGRAMS))
def test_every_program_is_a_tool_of_its_module_at_a_pinned_version(name: str) -> None:
    program = PROGRAMS[name]
    assert module_version(program.module, program.package).startswith("v")
    assert program.package in (MODULES / program.module / "go.mod").read_text()
    assert required_go(program.module) >= (1, 26)


def test_without_time_and_cache_a_line_gives_the_reason_and_no_program_is_built(tmp_path: Path) -> None:
    environment = os.environ | {"TWOFOLD_CACHE": str(tmp_path), BUDGET_VARIABLE: "0"}
    command = [sys.executable, "-m", "tests.kubernetes"]
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == LEFT_OUT
    assert "the tests on a real Kubernetes API server, since " in run.stdout
    assert run.stdout.count("\n") == 1
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".lock"]


def test_an_absent_module_is_left_out_and_an_altered_module_is_a_failure() -> None:
    absent = subprocess.CompletedProcess(["go"], 1, "", "go: downloading\nno route to host")
    with pytest.raises(Unbuilt, match="no route to host"):
        fetched(absent, "etcd")
    altered = subprocess.CompletedProcess(["go"], 1, "", "verifying: checksum mismatch\nSECURITY ERROR\n")
    with pytest.raises(BuildFailed, match="checksum mismatch"):
        fetched(altered, "etcd")


def test_a_build_without_enough_disk_space_does_not_start() -> None:
    check_disk_space(BUILD_BYTES, "etcd")
    with pytest.raises(Unbuilt, match=r"only 10\.0 are free"):
        check_disk_space(BUILD_BYTES - 1, "etcd")


@pytest.mark.parametrize(
    ("selector", "written"),
    [
        ({}, ""),
        ({"matchLabels": {"b": "2", "a": "1"}}, "a=1,b=2"),
        ({"matchExpressions": [{"key": "a", "operator": "In", "values": ["2", "1"]}]}, "a in (1,2)"),
        ({"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["1"]}]}, "a notin (1)"),
        ({"matchLabels": {"a": "1"}, "matchExpressions": [{"key": "b", "operator": "Exists"}]}, "a=1,b"),
        ({"matchExpressions": [{"key": "b", "operator": "DoesNotExist"}]}, "!b"),
    ],
)
def test_a_selector_has_the_form_of_the_api_parameter(selector: dict[str, object], written: str) -> None:
    assert label_selector(selector) == written


def test_a_source_spec_becomes_the_configuration_of_its_adapter() -> None:
    resources = [
        {"apiVersion": "v1", "kind": "Pod", "selector": {"matchLabels": {"a": "1"}}},
        {"apiVersion": "apps/v1", "kind": "Deployment"},
    ]
    source: dict[str, Any] = {
        "metadata": {"name": "pods", "namespace": "work"},
        "spec": {"mode": "Resource", "resources": resources},
    }
    configuration = source_config(source)
    assert (configuration["namespaces"], configuration["allNamespaces"]) == (["work"], False)
    assert configuration["mode"] == "Resource"
    assert configuration["resources"] == [
        {"gvr": {"Group": "", "Version": "v1", "Resource": "pods"}, "selector": "a=1"},
        {"gvr": {"Group": "apps", "Version": "v1", "Resource": "deployments"}, "selector": ""},
    ]
    source["spec"]["namespaceSelector"] = {}
    assert source_config(source)["allNamespaces"]
    source["spec"]["namespaceSelector"] = {"matchLabels": {"a": "1"}}
    with pytest.raises(ValueError, match="controller"):
        source_config(source)
