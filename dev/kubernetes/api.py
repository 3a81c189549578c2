"""The Kubernetes API over HTTP, as far as tests need it: any kind of object, by its own `apiVersion` and `kind`."""

import json
import ssl
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

import httpx

Manifest = dict[str, Any]
"""One Kubernetes object, as JSON has it."""

FIELD_MANAGER = "twofold-tests"
_LONGEST_MESSAGE = 2000  # some repeat the whole object
_APPLY = {"content-type": "application/apply-patch+yaml"}
_MERGE = {"content-type": "application/merge-patch+json"}


class Refused(RuntimeError):
    """The server said no; `status` is HTTP's, `reason` and the message are the server's words."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{status} {reason}: {message[:_LONGEST_MESSAGE]}")
        self.status = status
        self.reason = reason


@dataclass(frozen=True)
class Resource:
    """Where objects of one kind are."""

    prefix: str
    plural: str
    namespaced: bool

    def path(self, namespace: str, name: str = "") -> str:
        """The path of one object, or without `name` of all."""
        inside = f"/namespaces/{namespace}" if self.namespaced else ""
        return f"{self.prefix}{inside}/{self.plural}" + (f"/{name}" if name else "")


def tls_of(ca_file: Path) -> ssl.SSLContext:
    """Trust in that certificate alone."""
    return ssl.create_default_context(cafile=str(ca_file))


class Api:
    """A client with one token. Every method raises `Refused` when the server says no."""

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
        headers: Mapping[str, str] = MappingProxyType({}),
        query: Mapping[str, str] = MappingProxyType({}),
    ) -> Manifest:
        """One request, and the object that came back."""
        content = None if body is None else json.dumps(body)
        given = {"content-type": "application/json", **headers}
        answer = self._http.request(method, path, content=content, headers=given, params=dict(query))
        if answer.is_success:
            found: Manifest = answer.json()
            return found
        raise _refused(answer)

    def apply(self, manifest: Manifest, *, dry_run: bool = False) -> Manifest:
        """Server-side apply of one object, with unknown and doubled fields refused, as `kubectl apply` does it."""
        query = {"fieldManager": FIELD_MANAGER, "force": "true", "fieldValidation": "Strict"}
        query |= {"dryRun": "All"} if dry_run else {}
        return self.send("PATCH", self.path_of(manifest), manifest, headers=_APPLY, query=query)

    def apply_all(self, manifests: Iterable[Manifest]) -> None:
        """Server-side apply, one after the other."""
        for manifest in manifests:
            self.apply(manifest)

    def get(self, manifest: Manifest) -> Manifest:
        """The object as it is now."""
        return self.send("GET", self.path_of(manifest))

    def create(self, manifest: Manifest, *, dry_run: bool = False) -> Manifest:
        """A new object, which is returned as the server keeps it; with `dry_run`, as it would keep it."""
        collection, _, _ = self.path_of(manifest).rpartition("/")
        return self.send("POST", collection, manifest, query={"dryRun": "All"} if dry_run else {})

    def set_status(self, manifest: Manifest, status: Manifest) -> Manifest:
        """Merge `status` into the object's, as what controls it does (a list replaces a list)."""
        return self.send("PATCH", f"{self.path_of(manifest)}/status", {"status": status}, headers=_MERGE)

    def change(self, manifest: Manifest, changes: Manifest) -> Manifest:
        """Merge `changes` into the object."""
        return self.send("PATCH", self.path_of(manifest), changes, headers=_MERGE)

    def delete(self, manifest: Manifest, grace_period_s: int | None = None) -> Manifest:
        """Ask for the object's end; for a pod that runs, nothing but its `deletionTimestamp` comes of it at first."""
        query = {"propagationPolicy": "Background"}  # else a controller that is not here would have to let go of it
        query |= {} if grace_period_s is None else {"gracePeriodSeconds": str(grace_period_s)}
        return self.send("DELETE", self.path_of(manifest), query=query)

    def path_of(self, manifest: Manifest) -> str:
        """The path of the object that `manifest` describes; its name space is `default` unless it says so."""
        metadata = manifest["metadata"]
        resource = self.resource(manifest["apiVersion"], manifest["kind"])
        return resource.path(metadata.get("namespace", "default"), metadata["name"])

    def resource(self, api_version: str, kind: str) -> Resource:
        """Where that kind of objects is. Raises `Refused` with the status 404 if the server has no such kind."""
        wanted = (api_version, kind)
        if wanted not in self._resources:
            prefix = f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"
            for found in self.send("GET", prefix)["resources"]:
                if "/" not in found["name"]:
                    resource = Resource(prefix, found["name"], found["namespaced"])
                    self._resources[api_version, found["kind"]] = resource
        if wanted not in self._resources:
            raise Refused(httpx.codes.NOT_FOUND, "NotFound", f"there is no {kind} in {api_version}")
        return self._resources[wanted]

    def may(self, user: str, verb: str, **attributes: str) -> bool:
        """Whether RBAC lets `user` do that. `attributes` are those of a SubjectAccessReview: `resource`, `group`..."""
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {"user": user, "groups": _groups(user), "resourceAttributes": {"verb": verb, **attributes}},
        }
        path = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
        allowed: bool = self.send("POST", path, review)["status"]["allowed"]
        return allowed


def _groups(user: str) -> list[str]:
    """The groups that the server puts a service account into."""
    *_, namespace, _ = user.split(":") if user.startswith("system:serviceaccount:") else ["", "", ""]
    of_accounts = ["system:serviceaccounts", f"system:serviceaccounts:{namespace}"] if namespace else []
    return [*of_accounts, "system:authenticated"]


def _refused(answer: httpx.Response) -> Refused:
    try:
        said = answer.json()
    except json.JSONDecodeError:
        return Refused(answer.status_code, answer.reason_phrase, answer.text)
    return Refused(answer.status_code, said.get("reason", ""), said.get("message", ""))
