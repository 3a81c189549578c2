"""The pods that a Kubernetes API server has, page by page, as plain JSON. It blocks: call it from a thread."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kubernetes.client import ApiClient, Configuration, CoreV1Api
from kubernetes.client.exceptions import ApiException
from kubernetes.config import ConfigException, load_incluster_config, load_kube_config
from urllib3.exceptions import HTTPError

from twofold.errors import Unavailable
from twofold.settings import PodSettings

from .listing import Json, NotAllowed, Page

_WITHIN_S = (3.0, 20.0)
"""To connect, and for each read."""


class Cluster:
    """Every read is of the newest state: none names a `resourceVersion`, so none may come from a stale cache.

    Every method raises `Unavailable` when the API server doesn't answer as it should, and `NotAllowed`.
    """

    def __init__(self, api: CoreV1Api, namespace: str, selector: str, page: int) -> None:
        self._api = api
        self._namespace = namespace
        self._selector = selector
        self._page = page

    def page(self, after: str = "") -> Page:
        """The pods behind `after`, each shaped as an ApiServerSource sends it.

        A token that has expired (410) is replaced by the one that the server gives in its place. The list is then of
        two moments, and a pod may be missing in it.
        """
        asked: dict[str, Any] = {"limit": self._page, "_preload_content": False, "_request_timeout": _WITHIN_S}
        asked |= {"_continue": after} if after else {}
        asked |= {"label_selector": self._selector} if self._selector else {}
        with _errors("list"):
            try:
                answer = self._list(asked)
            except ApiException as error:
                if error.status != 410 or not (token := _continue_of(_status(error))):
                    raise
                answer = self._list(asked | {"_continue": token})
        return Page([pod | {"apiVersion": "v1", "kind": "Pod"} for pod in answer["items"] or ()], _continue_of(answer))

    def get(self, namespace: str, name: str) -> Json | None:
        """The pod of that name as it is now; None if the API server says that there is none."""
        with _errors("get"):
            try:
                return _read(
                    self._api.read_namespaced_pod(name, namespace, _preload_content=False, _request_timeout=_WITHIN_S)
                )
            except ApiException as error:
                if error.status == 404 and _status(error).get("reason") == "NotFound":
                    return None
                raise

    def _list(self, asked: Json) -> Json:
        if self._namespace:
            return _read(self._api.list_namespaced_pod(self._namespace, **asked))
        return _read(self._api.list_pod_for_all_namespaces(**asked))


def connect(settings: PodSettings) -> Cluster:
    """The cluster that the settings name, or `KUBECONFIG`, or that this runs in. Raises `Unavailable` without one."""
    configuration = Configuration()
    try:
        if settings.kubernetes_api_server:
            configuration.host = settings.kubernetes_api_server
            configuration.ssl_ca_cert = settings.kubernetes_ca_file or None
            if token := settings.kubernetes_token.get_secret_value():
                configuration.api_key["BearerToken"] = f"Bearer {token}"
        elif settings.kubeconfig:
            load_kube_config(  # type: ignore[no-untyped-call]  # kubernetes.config has no types
                settings.kubeconfig, client_configuration=configuration, persist_config=False
            )
        else:
            load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]  # nor here
    except ConfigException as error:
        raise Unavailable(
            f"no Kubernetes API server to list pods at: {error}; set KUBERNETES_API_SERVER or KUBECONFIG, or give the "
            "function a service account"
        ) from error
    api = CoreV1Api(ApiClient(configuration))
    return Cluster(api, settings.pods_namespace, settings.pods_selector, settings.pods_page)


@contextmanager
def _errors(verb: str) -> Iterator[None]:
    """Turn the client's errors into ours."""
    try:
        yield
    except ApiException as error:
        if error.status in (401, 403):
            raise NotAllowed(
                f"the API server answered {error.status}: the service account needs the verb {verb} on pods"
            ) from error
        raise Unavailable(f"the API server answered {error.status} to {verb} pods") from error
    except (HTTPError, OSError, ValueError, KeyError, TypeError) as error:
        raise Unavailable(f"the API server could not be asked to {verb} pods: {type(error).__name__}") from error


def _read(response: Any) -> Json:
    answer: Json = json.loads(response.data)
    return answer


def _status(error: ApiException) -> Json:
    """Kubernetes' own account of an error; empty if it came from something between."""
    try:
        status = json.loads(error.body or "")
    except ValueError:
        return {}
    return status if isinstance(status, dict) and status.get("kind") == "Status" else {}


def _continue_of(answer: Json) -> str:
    return str((answer.get("metadata") or {}).get("continue") or "")
