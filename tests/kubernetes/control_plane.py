"""etcd and kube-apiserver on loopback, with role-based access control and without controllers."""

import json
import secrets
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import httpx
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from dev.process.child import Child, free_port
from tests.kubernetes.api import Api, tls_of

READY_WITHIN_S = 90.0
_TOKEN_LASTS_S = 3600


class ControlPlane:
    """A Kubernetes API for the time of a `with` block. RBAC alone decides; `api` is an administrator's client.

    `etcd` and `kube_apiserver` are the programs. The data lies in `directory`.
    """

    def __init__(self, etcd: Path, kube_apiserver: Path, directory: Path, logs: Path) -> None:
        self._directory = directory
        self._undo: ExitStack
        self._admin_token = secrets.token_urlsafe(24)
        self.ca_file = directory / "certificates" / "apiserver.crt"
        """The server's own certificate, which clients trust."""
        self._signing_key = directory / "certificates" / "service-accounts.key"
        self._tokens = directory / "tokens.csv"
        etcd_port, peer_port, self.port = free_port(), free_port(), free_port()
        self.url = f"https://127.0.0.1:{self.port}"
        self.etcd = Child(
            "etcd",
            [etcd, *self._etcd_options(etcd_port, peer_port)],
            log=logs / "etcd.log",
            ready=lambda _: _healthy(f"http://127.0.0.1:{etcd_port}/health"),
        )
        self.server = Child(
            "kube-apiserver",
            [kube_apiserver, *self._server_options(etcd_port)],
            log=logs / "kube-apiserver.log",
            ready=lambda _: self._ready(),
            ready_within=READY_WITHIN_S,
        )
        self.api: Api

    def __enter__(self) -> Self:
        with ExitStack() as undo:
            self._write_keys()
            for child in (self.etcd, self.server):
                undo.callback(child.stop)
                child.start()
            self.api = undo.enter_context(Api(self.url, self._admin_token, self.ca_file))
            self._undo = undo.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._undo.close()

    def token(self, namespace: str, service_account: str) -> str:
        """Return a token of a service account. Raises `api.Refused` if the account does not exist."""
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{service_account}/token"
        request = {"spec": {"expirationSeconds": _TOKEN_LASTS_S}}
        token: str = self.api.send("POST", path, request)["status"]["token"]
        return token

    def kubeconfig(self, namespace: str, service_account: str) -> Path:
        """Write and return a kubeconfig file for a service account."""
        cluster = {"server": self.url, "certificate-authority": str(self.ca_file)}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "local", "cluster": cluster}],
            "users": [{"name": "local", "user": {"token": self.token(namespace, service_account)}}],
            "contexts": [{"name": "local", "context": {"cluster": "local", "user": "local", "namespace": namespace}}],
            "current-context": "local",
        }
        path = self._directory / f"{namespace}-{service_account}.kubeconfig"
        path.touch(mode=0o600)
        path.write_text(json.dumps(config))  # JSON is YAML
        return path

    def _write_keys(self) -> None:
        """Write the key that signs service accounts' tokens, and the administrator's token."""
        self.ca_file.parent.mkdir(parents=True)
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self._signing_key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        self._tokens.touch(mode=0o600)
        self._tokens.write_text(f"{self._admin_token},administrator,administrator,system:masters\n")

    def _etcd_options(self, port: int, peer_port: int) -> list[str]:
        own, peer = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{peer_port}"
        return [
            *("--data-dir", str(self._directory / "etcd")),
            *("--listen-client-urls", own, "--advertise-client-urls", own),
            *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer),
            *("--initial-cluster", f"default={peer}"),
            "--unsafe-no-fsync",  # the data is removed with the process
        ]

    def _server_options(self, etcd_port: int) -> list[str]:
        return [
            f"--etcd-servers=http://127.0.0.1:{etcd_port}",
            f"--cert-dir={self.ca_file.parent}",  # the server writes its own certificate here
            "--bind-address=127.0.0.1",
            f"--secure-port={self.port}",
            "--advertise-address=127.0.0.1",
            "--endpoint-reconciler-type=none",  # the reconciler would refuse a loopback address
            "--service-cluster-ip-range=10.0.0.0/24",
            "--authorization-mode=RBAC",
            f"--token-auth-file={self._tokens}",
            f"--service-account-issuer={self.url}",
            f"--service-account-key-file={self._signing_key}",
            f"--service-account-signing-key-file={self._signing_key}",
        ]

    def _ready(self) -> bool:
        headers = {"authorization": f"Bearer {self._admin_token}"}
        return self.ca_file.exists() and _healthy(f"{self.url}/readyz", headers=headers, verify=tls_of(self.ca_file))


def _healthy(url: str, **options: Any) -> bool:
    try:
        return httpx.get(url, timeout=2.0, **options).is_success
    except httpx.HTTPError:
        return False
