"""A client of the Kubernetes API for objects of any `apiVersion` and `kind`."""

import json
import ssl
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Self

import httpx

Manifest = dict[str, Any]
"""A Kubernetes object as JSON."""

FIELD_MANAGER = "twofold-tests"
_LONGEST_MESSAGE = 2000  # some messages repeat the whole object
_APPLY = "application/apply-patch+yaml"
_MERGE = "application/merge-patch+json"


class Refused(RuntimeError):
    """The server refused a request, with this HTTP status. The message holds the server's reason and message."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{status} {reason}: {message[:_LONGEST_MESSAGE]}")
        self.status = status


class Resource(NamedTuple):
    """The place of the objects of a kind."""

    prefix: str
    plural: str
    namespaced: bool


def tls_of(ca_file: Path) -> ssl.SSLContext:
    """Return a context that trusts only this certificate."""
    return ssl.create_default_context(cafile=str(ca_file))


class Api:
    """A client with a token. Its methods raise `Refused`."""

    def __init__(self, url: str, token: str, ca_file: Path) -> None:
        headers = {"authorization": f"Bearer {token}"}
        self._http = httpx.Client(base_url=url, headers=headers, verify=tls_of(ca_file), timeout=30.0)
        self._resources: dict[tuple[str, str], Resource] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def send(
        self,
        method: str,
        path: str,
        body: Manifest | None = None,
        *,
        media_type: str = "application/json",
        query: Mapping[str, str] | None = None,
    ) -> Manifest:
        """Send a request and return the object of the answer."""
        content = None if body is None else json.dumps(body)
        headers = {"content-type": media_type}
        answer = self._http.request(method, path, content=content, headers=headers, params=query)
        if not answer.is_success:
            raise _refused(answer)
        found: Manifest = answer.json()
        return found

    def apply(self, manifest: Manifest, *, dry_run: bool = False) -> Manifest:
        """Apply an object on the server, as `kubectl apply --server-side` does. Unknown fields are errors."""
        query = {"fieldManager": FIELD_MANAGER, "force": "true", "fieldValidation": "Strict", **_dry(dry_run)}
        return self.send("PATCH", self.path_of(manifest), manifest, media_type=_APPLY, query=query)

    def apply_all(self, manifests: Iterable[Manifest]) -> None:
        """Apply the objects in their order."""
        for manifest in manifests:
            self.apply(manifest)

    def get(self, manifest: Manifest) -> Manifest:
        """Return the object's present state."""
        return self.send("GET", self.path_of(manifest))

    def create(self, manifest: Manifest, *, dry_run: bool = False) -> Manifest:
        """Create an object and return the server's form of it. With `dry_run`, the server does not keep it."""
        collection, _, _ = self.path_of(manifest).rpartition("/")
        return self.send("POST", collection, manifest, query=_dry(dry_run))

    def set_status(self, manifest: Manifest, status: Manifest) -> Manifest:
        """Merge `status` into the object's status. A list replaces a list."""
        return self.send("PATCH", f"{self.path_of(manifest)}/status", {"status": status}, media_type=_MERGE)

    def change(self, manifest: Manifest, changes: Manifest) -> Manifest:
        """Merge `changes` into the object."""
        return self.send("PATCH", self.path_of(manifest), changes, media_type=_MERGE)

    def delete(self, manifest: Manifest, grace_period_s: int | None = None) -> Manifest:
        """Request the object's deletion. A running pod stays, with a `deletionTimestamp`, until its kubelet ends it."""
        query = {
            "propagationPolicy": "Background"
        }  # the default policy may wait for a controller, which is missing here
        query |= {} if grace_period_s is None else {"gracePeriodSeconds": str(grace_period_s)}
        return self.send("DELETE", self.path_of(manifest), query=query)

    def path_of(self, manifest: Manifest) -> str:
        """Return the path of the object. The default name space is `default`."""
        metadata = manifest["metadata"]
        resource = self.resource(manifest["apiVersion"], manifest["kind"])
        inside = f"/namespaces/{metadata.get('namespace', 'default')}" if resource.namespaced else ""
        return f"{resource.prefix}{inside}/{resource.plural}/{metadata['name']}"

    def resource(self, api_version: str, kind: str) -> Resource:
        """Return the place of a kind. Raises `Refused` with the status 404 if the server lacks the kind."""
        if (api_version, kind) not in self._resources:
            prefix = f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"
            for found in self.send("GET", prefix)["resources"]:
                if "/" not in found["name"]:
                    self._resources[api_version, found["kind"]] = Resource(prefix, found["name"], found["namespaced"])
        if (api_version, kind) not in self._resources:
            raise Refused(httpx.codes.NOT_FOUND, "NotFound", f"the server has no {kind} in {api_version}")
        return self._resources[api_version, kind]

    def may(self, user: str, verb: str, **attributes: str) -> bool:
        """Return True if RBAC allows this. `attributes` are those of a SubjectAccessReview: `resource`, `group`..."""
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {"user": user, "groups": _groups(user), "resourceAttributes": {"verb": verb, **attributes}},
        }
        path = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
        allowed: bool = self.send("POST", path, review)["status"]["allowed"]
        return allowed


def _dry(dry_run: bool) -> dict[str, str]:
    return {"dryRun": "All"} if dry_run else {}


def _groups(user: str) -> list[str]:
    """Return the groups of a user: the server adds two for a service account."""
    if not user.startswith("system:serviceaccount:"):
        return ["system:authenticated"]
    return ["system:serviceaccounts", f"system:serviceaccounts:{user.split(':')[2]}", "system:authenticated"]


def _refused(answer: httpx.Response) -> Refused:
    try:
        status = answer.json()
    except json.JSONDecodeError:
        return Refused(answer.status_code, answer.reason_phrase, answer.text)
    return Refused(answer.status_code, status.get("reason", ""), status.get("message", ""))
