"""Settings, users and secrets that are not as they must be: each is found out."""

import pytest

from dev.manifests.project import Project
from dev.manifests.rules_settings import (
    a_changed_setting_reaches_every_pod,
    each_function_is_a_user_of_its_own,
    passwords_are_in_secrets,
    references_lead_somewhere,
    settings_are_taken,
    time_outs_fit_into_each_other,
)
from tests.manifests.breaking import (
    Broken,
    Overlays,
    config_map,
    container,
    env,
    env_of_setup,
    list_of,
    pod,
    remove,
    settings,
    setup,
)

pytestmark = pytest.mark.dev

BROKEN = (
    Broken(
        settings_are_taken, "no number", lambda r: settings(r).update(RELAY_BATCH="many"), "RELAY_BATCH: Input should"
    ),
    Broken(
        settings_are_taken, "no MongoDB", lambda r: container(r).update(env=[]), "Service store: MONGODB_URI: Field"
    ),
    Broken(
        time_outs_fit_into_each_other,
        "cut off while the relay works",
        lambda r: pod(r, "relay").update(timeoutSeconds=30),
        "not more than the 50 s",
    ),
    Broken(
        time_outs_fit_into_each_other,
        "cut off while it lists",
        lambda r: pod(r, "pod_events").update(timeoutSeconds=30),
        "not more than the 30 s",
    ),
    Broken(
        time_outs_fit_into_each_other,
        "cut off before MongoDB answers",
        lambda r: pod(r).update(timeoutSeconds=3),
        "not more than the 4 s",
    ),
    Broken(
        time_outs_fit_into_each_other,
        "cut off in a live stream",
        lambda r: pod(r, "query").update(timeoutSeconds=240),
        "not more than the 240 s",
    ),
    Broken(
        time_outs_fit_into_each_other,
        "cut off while a reader of the feed waits",
        lambda r: pod(r, "audit").update(timeoutSeconds=25),
        "not more than the 25 s",
    ),
    Broken(
        time_outs_fit_into_each_other,
        "cut off in an export",
        lambda r: pod(r, "admin").update(timeoutSeconds=30),
        "not more than the 30 s",
    ),
    Broken(
        each_function_is_a_user_of_its_own,
        "another's user",
        lambda r: env(r, "MONGODB_URI").update(value=env(r, "MONGODB_URI", "relay")["value"]),
        "not that of the user store",
    ),
    Broken(
        each_function_is_a_user_of_its_own,
        "another's password",
        lambda r: env(r, "MONGODB_PASSWORD")["valueFrom"]["secretKeyRef"].update(name="mongodb-relay"),
        "not the password of Secret mongodb-store",
    ),
    Broken(
        each_function_is_a_user_of_its_own,
        "put together too early",
        lambda r: container(r).update(env=container(r)["env"][::-1]),
        "stands before",
    ),
    Broken(
        each_function_is_a_user_of_its_own,
        "a user that nobody makes",
        lambda r: setup(r)["containers"][0]["env"].remove(env_of_setup(r, "MONGODB_PASSWORD_STORE")),
        "Job setup: MONGODB_PASSWORD_",
    ),
    Broken(
        references_lead_somewhere,
        "no account",
        lambda r: remove(r, "ServiceAccount", "store"),
        "no ServiceAccount store",
    ),
    Broken(
        references_lead_somewhere,
        "no ConfigMap",
        lambda r: list_of(r).remove(config_map(r, "mongodb")),
        "no ConfigMap mongodb",
    ),
    Broken(
        references_lead_somewhere,
        "no hosts",
        lambda r: container(r)["env"].remove(env(r, "MONGODB_HOSTS")),
        "from MONGODB_HOSTS, which is not above it",
    ),
    Broken(
        references_lead_somewhere,
        "an older name of a ConfigMap",
        lambda r: env(r, "MONGODB_HOSTS")["valueFrom"]["configMapKeyRef"].update(name="mongodb-2222222222"),
        "no ConfigMap mongodb-2222222222",
    ),
    Broken(
        a_changed_setting_reaches_every_pod,
        "one name for ever",
        lambda r: container(r)["envFrom"][0]["configMapRef"].update(name="settings"),
        "Service store: ConfigMap settings is not named by what it holds",
    ),
    Broken(
        a_changed_setting_reaches_every_pod,
        "one name for ever, in the set-up",
        lambda r: setup(r)["containers"][0]["envFrom"][0]["configMapRef"].update(name="settings"),
        "Job setup: ConfigMap settings is not named by what it holds",
    ),
    Broken(
        a_changed_setting_reaches_every_pod,
        "one name for ever, of one key",
        lambda r: env(r, "MONGODB_HOSTS")["valueFrom"]["configMapKeyRef"].update(name="mongodb"),
        "ConfigMap mongodb is not named by what it holds",
    ),
    Broken(
        a_changed_setting_reaches_every_pod,
        "no settings",
        lambda r: container(r).pop("envFrom"),
        "envFrom is not the ConfigMap settings",
    ),
    Broken(
        references_lead_somewhere,
        "no Secret",
        lambda r: remove(r, "Secret", "mongodb-store"),
        "no Secret mongodb-store with password",
        "local",
    ),
    Broken(
        passwords_are_in_secrets,
        "a Secret in the tree",
        lambda r: list_of(r).append({"kind": "Secret", "metadata": {"name": "kafka"}, "apiVersion": "v1"}),
        "don't belong into the tree",
    ),
    Broken(
        passwords_are_in_secrets,
        "a password in a Service",
        lambda r: container(r)["env"].append({"name": "KAFKA_SASL_PASSWORD", "value": "secret"}),
        "does not come from a Secret",
    ),
    Broken(
        passwords_are_in_secrets,
        "a password in a ConfigMap",
        lambda r: settings(r).update(MONGODB_URI="mongodb://root:secret@mongodb"),
        "belongs into a Secret",
    ),
    Broken(
        passwords_are_in_secrets,
        "an empty place for a token in a ConfigMap",
        lambda r: settings(r).update(KUBERNETES_TOKEN=""),
        "KUBERNETES_TOKEN belongs into a Secret",
    ),
)


@pytest.mark.parametrize("broken", BROKEN, ids=str)
def test_it_is_found_out(broken: Broken, overlays: Overlays, project: Project) -> None:
    found = broken.complaints(overlays, project)
    assert any(broken.says in line for line in found), found
