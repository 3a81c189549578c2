"""The pods of a Kubernetes API server, page by page, as plain JSON. The calls block: run them in a thread."""

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

from .listing import JsonObject, NotAllowed, PodPage

_TIMEOUTS_S = (3.0, 20.0)
"""The seconds for the connection and for a read."""


class Cluster:
    """The pods of one cluster. No request names a `resourceVersion`, so no answer comes from a stale cache.

    Every method raises `Unavailable` for an API server without a valid answer, and `NotAllowed`.
    """

    def __init__(self, api: CoreV1Api, namespace: str, selector: str, page: int, page_bytes: int) -> None:
        self._api = api
        self._namespace = namespace
        self._selector = selector
        self._page = page
        self._page_bytes = page_bytes
        self._limit = page

    def page(self, after: str = "") -> PodPage:
        """Return the pods behind the token `after`, in the form of an ApiServerSource.

        If the token has expired (410), the server's new token takes its place. The pages then come from two moments,
        and a pod may be missing between them.

        A page of more than `page_bytes` is not read to its end: the same pods are requested in smaller pages. The next
        page grows again.
        """
        while (answer := self._answer(after)) is None:
            self._limit = max(self._limit // 4, 1)
        self._limit = min(self._limit * 2, self._page)
        pods = [pod | {"apiVersion": "v1", "kind": "Pod"} for pod in answer["items"] or ()]
        return PodPage(pods, _continue_of(answer))

    def _answer(self, after: str) -> JsonObject | None:
        """Return the answer of the API server for a page; None if it has too many bytes."""
        options: dict[str, Any] = {"limit": self._limit, "_preload_content": False, "_request_timeout": _TIMEOUTS_S}
        options |= {"_continue": after} if after else {}
        options |= {"label_selector": self._selector} if self._selector else {}
        with _errors("list"):
            try:
                return self._list(options)
            except ApiException as error:
                if error.status != 410 or not (token := _continue_of(_status(error))):
                    raise
                return self._list(options | {"_continue": token})

    def get(self, namespace: str, name: str) -> JsonObject | None:
        """Return the present pod of this name, or None if the API server itself answers `NotFound`."""
        with _errors("get"):
            try:
                options: dict[str, Any] = {"_preload_content": False, "_request_timeout": _TIMEOUTS_S}
                return _read(self._api.read_namespaced_pod(name, namespace, **options))
            except ApiException as error:
                if error.status == 404 and _status(error).get("reason") == "NotFound":
                    return None
                raise

    def _list(self, options: JsonObject) -> JsonObject | None:
        if self._namespace:
            response = self._api.list_namespaced_pod(self._namespace, **options)
        else:
            response = self._api.list_pod_for_all_namespaces(**options)
        return _read(response) if self._limit == 1 else _read_bounded(response, self._page_bytes)


def connect(settings: PodSettings) -> Cluster:
    """Return the cluster of the settings, of `KUBECONFIG`, or of this pod. Raises `Unavailable` without a cluster."""
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
            load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]  # no types
    except ConfigException as error:
        raise Unavailable(
            f"no Kubernetes API server for the listing of pods: {error}; set KUBERNETES_API_SERVER or KUBECONFIG, or "
            "give the function a service account"
        ) from error
    api = CoreV1Api(ApiClient(configuration))
    return Cluster(api, settings.pods_namespace, settings.pods_selector, settings.pods_page, settings.pods_page_bytes)


@contextmanager
def _errors(verb: str) -> Iterator[None]:
    """Translate the errors of the Kubernetes client."""
    try:
        yield
    except ApiException as error:
        if error.status in (401, 403):
            raise NotAllowed(
                f"the Kubernetes API server answered {error.status}: the service account needs the verb {verb} on pods"
            ) from error
        raise Unavailable(f"the Kubernetes API server answered {error.status} to {verb} pods") from error
    except (HTTPError, OSError, ValueError, KeyError, TypeError) as error:
        raise Unavailable(
            f"the Kubernetes API server gave no valid answer to {verb} pods: {type(error).__name__}"
        ) from error


def _read(response: Any) -> JsonObject:
    answer: JsonObject = json.loads(response.data)
    return answer


def _read_bounded(response: Any, most: int) -> JsonObject | None:
    """Return the JSON object of a response; None if it has more than `most` bytes. The rest is not read."""
    body = response.read(most + 1)
    if len(body) > most:
        response.close()
        return None
    response.release_conn()
    answer: JsonObject = json.loads(body)
    return answer


def _status(error: ApiException) -> JsonObject:
    """Return the `Status` object of the API server; empty if a proxy made the error."""
    try:
        status = json.loads(error.body or "")
    except ValueError:
        return {}
    return status if isinstance(status, dict) and status.get("kind") == "Status" else {}


def _continue_of(answer: JsonObject) -> str:
    return str((answer.get("metadata") or {}).get("continue") or "")
