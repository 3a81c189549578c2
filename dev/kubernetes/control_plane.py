"""etcd and kube-apiserver on loopback, with role-based access control, and nothing behind them."""

import json
import secrets
import subprocess
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import httpx

from dev.kubernetes.api import Api, tls_of
from dev.processes import Child, StartFailed, free_port

READY_WITHIN_S = 90.0
_TOKEN_LASTS_S = 3600


@dataclass(frozen=True)
class Programs:
    """The two that are started."""

    etcd: Path
    kube_apiserver: Path


class ControlPlane:
    """A Kubernetes API that accepts, validates, authorizes and remembers, from `with` to the block's end.

    Its data lies in `directory`, its logs in `logs`. What a client may do is decided by RBAC alone; `api` is a
    cluster administrator's.
    """

    def __init__(self, programs: Programs, directory: Path, logs: Path) -> None:
        self._directory = directory
        self._undo = ExitStack()
        self._admin_token = secrets.token_urlsafe(24)
        etcd_port, peer_port, self.port = free_port(), free_port(), free_port()
        self.url = f"https://127.0.0.1:{self.port}"
        self.etcd = Child(
            "etcd",
            [programs.etcd, *self._etcd_options(etcd_port, peer_port)],
            log=logs / "etcd.log",
            ready=lambda _: _healthy(f"http://127.0.0.1:{etcd_port}/health"),
        )
        self.server = Child(
            "kube-apiserver",
            [programs.kube_apiserver, *self._server_options(etcd_port)],
            log=logs / "kube-apiserver.log",
            ready=lambda _: self._ready(),
            ready_within=READY_WITHIN_S,
        )
        self.api: Api

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._undo.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._undo.close()

    @property
    def ca_file(self) -> Path:
        """The certificate that the server made for itself; clients trust it alone."""
        return self._directory / "certificates" / "apiserver.crt"

    def token(self, namespace: str, service_account: str) -> str:
        """A token of a service account, as the kubelet gets it for a pod. Raises `api.Refused` if it is not there."""
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{service_account}/token"
        request = {"spec": {"expirationSeconds": _TOKEN_LASTS_S}}
        token: str = self.api.send("POST", path, request)["status"]["token"]
        return token

    def kubeconfig(self, namespace: str, service_account: str) -> Path:
        """A new file that lets a program be that service account, and no more."""
        path = self._directory / f"{namespace}-{service_account}.kubeconfig"
        path.touch(mode=0o600)
        path.write_text(json.dumps(self._kubeconfig(namespace, self.token(namespace, service_account))))  # JSON is YAML
        return path

    def _kubeconfig(self, namespace: str, token: str) -> dict[str, Any]:
        cluster = {"server": self.url, "certificate-authority": str(self.ca_file)}
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "local", "cluster": cluster}],
            "users": [{"name": "local", "user": {"token": token}}],
            "contexts": [{"name": "local", "context": {"cluster": "local", "user": "local", "namespace": namespace}}],
            "current-context": "local",
        }

    def _start(self) -> None:
        self._write_keys()
        self._undo.callback(self.etcd.kill)  # its data is about to be removed: nothing is gained by asking
        self.etcd.start()
        self._undo.callback(self.server.kill)
        self.server.start()
        self.api = self._undo.enter_context(Api(self.url, self._admin_token, self.ca_file))

    def _write_keys(self) -> None:
        """The key that signs service accounts' tokens, and the administrator's own token."""
        self.ca_file.parent.mkdir(parents=True)
        command = ["openssl", "genrsa", "-out", str(self._signing_key), "2048"]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        if run.returncode != 0:
            raise StartFailed(f"openssl made no key: {run.stderr}")
        self._tokens.touch(mode=0o600)
        self._tokens.write_text(f"{self._admin_token},administrator,administrator,system:masters\n")

    @property
    def _signing_key(self) -> Path:
        return self._directory / "certificates" / "service-accounts.key"

    @property
    def _tokens(self) -> Path:
        return self._directory / "tokens.csv"

    def _etcd_options(self, port: int, peer_port: int) -> list[str]:
        own, peer = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{peer_port}"
        return [
            *("--data-dir", str(self._directory / "etcd")),
            *("--listen-client-urls", own, "--advertise-client-urls", own),
            *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer),
            *("--initial-cluster", f"default={peer}"),
            "--unsafe-no-fsync",  # it does not outlive this process
        ]

    def _server_options(self, etcd_port: int) -> list[str]:
        return [
            f"--etcd-servers=http://127.0.0.1:{etcd_port}",
            f"--cert-dir={self.ca_file.parent}",  # where it puts a certificate of its own making
            "--bind-address=127.0.0.1",
            f"--secure-port={self.port}",
            "--advertise-address=127.0.0.1",
            "--endpoint-reconciler-type=none",  # which would refuse a loopback address
            "--service-cluster-ip-range=10.0.0.0/24",
            "--authorization-mode=RBAC",
            f"--token-auth-file={self._tokens}",
            f"--service-account-issuer={self.url}",
            f"--service-account-key-file={self._signing_key}",
            f"--service-account-signing-key-file={self._signing_key}",
        ]

    def _ready(self) -> bool:
        if not self.ca_file.exists():
            return False
        headers = {"authorization": f"Bearer {self._admin_token}"}
        return _healthy(f"{self.url}/readyz", headers=headers, verify=tls_of(self.ca_file))


def _healthy(url: str, **options: Any) -> bool:
    try:
        return httpx.get(url, timeout=2.0, **options).is_success
    except httpx.HTTPError:
        return False
