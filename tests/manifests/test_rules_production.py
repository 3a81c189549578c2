"""Production with a door open, or with something sent in the clear: each is found out."""

from collections.abc import Callable

import pytest

from dev.manifests.project import Project
from dev.manifests.rendering import Rendered
from dev.manifests.rules_production import (
    kafka_is_reached_as_a_user,
    mongodb_is_reached_by_tls,
    nobody_is_let_in_without_a_token,
)
from tests.manifests.breaking import Broken, Overlays, config_map, container, env, pod, settings

pytestmark = pytest.mark.dev


def dropped(variable: str, function: str) -> Callable[[Rendered], object]:
    """The change that takes a variable out."""
    return lambda rendered: container(rendered, function)["env"].remove(env(rendered, variable, function))


BROKEN = (
    Broken(
        nobody_is_let_in_without_a_token,
        "no tokens",
        lambda r: settings(r).update(AUTH="off"),
        "Service publish: AUTH is off",
    ),
    Broken(
        nobody_is_let_in_without_a_token,
        "no tokens for one function",
        lambda r: container(r, "admin")["env"].append({"name": "AUTH", "value": "off"}),
        "Service admin: AUTH is off",
    ),
    Broken(
        mongodb_is_reached_by_tls,
        "in the clear",
        lambda r: config_map(r, "mongodb")["data"].update(options="replicaSet=rs0"),
        "Service store: MongoDB is reached without TLS",
    ),
    Broken(
        mongodb_is_reached_by_tls,
        "no certificate",
        lambda r: pod(r)["volumes"].pop(),
        "Service store: tlsCAFile is not in the Secret",
    ),
    Broken(
        mongodb_is_reached_by_tls,
        "a certificate that is not mounted",
        lambda r: container(r)["volumeMounts"].pop(),
        "Service store: tlsCAFile is not in the Secret",
    ),
    Broken(
        mongodb_is_reached_by_tls,
        "a certificate elsewhere",
        lambda r: config_map(r, "mongodb")["data"].update(options="tls=true&tlsCAFile=/etc/ca.crt"),
        "Job setup: tlsCAFile is not in the Secret",
    ),
    *(
        Broken(
            kafka_is_reached_as_a_user,
            f"no {name} in {function}",
            dropped(name, function),
            f"Service {function.replace('_', '-')}: {name} is not",
        )
        for name in ("KAFKA_SASL_USERNAME", "KAFKA_SASL_PASSWORD")
        for function in ("publish", "pod_events")
    ),
    Broken(
        kafka_is_reached_as_a_user,
        "no certificate of Kafka's",
        lambda r: container(r, "relay")["volumeMounts"].pop(),
        "Service relay: KAFKA_SSL_CAFILE is not in the Secret kafka",
    ),
)


@pytest.mark.parametrize("broken", BROKEN, ids=str)
def test_it_is_found_out(broken: Broken, overlays: Overlays, project: Project) -> None:
    found = broken.complaints(overlays, project)
    assert any(broken.says in line for line in found), found
