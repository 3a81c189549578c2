"""The messages about wrong settings and unavailable servers: every line of the table in docs/operations.md."""

import datetime as dt
import ipaddress
import json
import re
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from dev.paths import ROOT
from dev.process.child import free_port, plain_environment
from dev.stack import Stack
from twofold.kafka.client import client_module
from twofold.kafka.diagnosis import ConnectionErrors, diagnose
from twofold.settings import Settings

pytestmark = [pytest.mark.guarantee("R34"), pytest.mark.fault("C2")]

DOCS = (ROOT / "docs/operations.md").read_text().partition("## Messages about settings and servers")[2]
TABLE: Mapping[str, str] = dict(
    re.findall(r"^\| (.+?) \| `{1,2}(.+?)`{1,2} \|$", DOCS.partition("\n## ")[0], re.MULTILINE)
)
SEEN: set[str] = set()

FUNCTION_ENV = {"MONGODB_URI": "mongodb://127.0.0.1:1/", "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1", "AUTH": "off"}


def documented(cause: str) -> re.Pattern[str]:
    """Return the documented message as a pattern."""
    SEEN.add(cause)
    pattern = re.escape(TABLE[cause]).replace("HOST:PORT", r"\S+").replace("FILE\\ cannot", r"\S+\ cannot")
    return re.compile(pattern.replace("FILE\\ has", r"\S+\ has"))


def run(code: str, env: Mapping[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python code in a process with this environment alone."""
    command = [sys.executable, "-c", code, *arguments]
    clean = plain_environment() | {"COLUMNS": "400"} | dict(env)
    return subprocess.run(command, env=clean, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


def twofold(env: Mapping[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command line."""
    return run("from twofold.cli import main; main()", env, *(arguments or ("dead-letters", "count")))


def started(function: str, env: Mapping[str, str]) -> Any:
    """Start a function that ends at once, and return its log line."""
    ended = run(f"import functions.{function}.main", FUNCTION_ENV | dict(env))
    assert ended.returncode == 1, ended.stderr
    lines = [line for line in map(json.loads, ended.stderr.splitlines()) if line["level"] == "critical"]
    assert len(lines) == 1, ended.stderr
    assert lines[0]["message"].startswith("the function does not start: ")
    return lines[0]["message"]


def no_file(_: Path) -> str:
    return "/no/such/ca.pem"


def not_a_ca(folder: Path) -> str:
    (folder / "not-a-ca.pem").write_text("hello")
    return str(folder / "not-a-ca.pem")


WRONG_SETTINGS: dict[str, Callable[[Path], dict[str, str]]] = {
    "`MONGODB_URI` is empty": lambda _: {"MONGODB_URI": ""},
    "`MONGODB_URI` has another scheme": lambda _: {"MONGODB_URI": "mongo://someone:secret@db/"},
    "`MONGODB_URI` has an unknown option": lambda _: {"MONGODB_URI": "mongodb://u:secret@db/?tlsCAPath=x"},
    "`tlsCAFile` names no file": lambda tmp: {"MONGODB_URI": f"mongodb://db/?tls=true&tlsCAFile={no_file(tmp)}"},
    "`tlsCAFile` names no CA": lambda tmp: {"MONGODB_URI": f"mongodb://db/?tls=true&tlsCAFile={not_a_ca(tmp)}"},
    "a number is wrong": lambda _: {"RETENTION_DAYS": "0"},
}
KAFKA_SETTINGS: dict[str, Callable[[Path], dict[str, str]]] = {
    "`KAFKA_BOOTSTRAP_SERVERS` has no port": lambda _: {"KAFKA_BOOTSTRAP_SERVERS": "kafka"},
    "`KAFKA_SSL_CAFILE` names no file": lambda tmp: {"KAFKA_SSL_CAFILE": no_file(tmp)},
    "`KAFKA_SSL_CAFILE` names no CA": lambda tmp: {"KAFKA_SSL_CAFILE": not_a_ca(tmp)},
    "SASL without a user": lambda _: {"KAFKA_SECURITY_PROTOCOL": "SASL_SSL", "KAFKA_SASL_MECHANISM": "PLAIN"},
}


class TestSettings:
    @pytest.mark.parametrize("cause", WRONG_SETTINGS)
    def test_a_wrong_variable_is_one_line(self, cause: str, tmp_path: Path) -> None:
        env = WRONG_SETTINGS[cause](tmp_path)
        ended = twofold(FUNCTION_ENV | env)
        assert ended.returncode == 2
        (line,) = ended.stderr.splitlines()
        assert documented(cause).fullmatch(line)
        assert documented(cause).search(started("relay", env))
        assert "secret" not in line

    def test_a_missing_variable_is_one_line(self) -> None:
        ended = twofold({})
        assert ended.returncode == 2
        assert documented("`MONGODB_URI` is not set").fullmatch(ended.stderr.strip())
        setup = run("from twofold.setup.__main__ import main; main()", {})
        assert (setup.returncode, setup.stderr) == (2, ended.stderr)
        code = "import os; del os.environ['MONGODB_URI']; import functions.store.main"
        function = run(code, FUNCTION_ENV)
        assert function.returncode == 1
        assert documented("`MONGODB_URI` is not set").search(json.loads(function.stderr)["message"])

    @pytest.mark.parametrize("cause", KAFKA_SETTINGS)
    def test_a_wrong_variable_of_kafka_is_one_line(self, cause: str, tmp_path: Path, stack: Stack) -> None:
        env = KAFKA_SETTINGS[cause](tmp_path)
        assert documented(cause).search(started("publish", env))
        ended = twofold(stack.environment | env, "setup")
        assert (ended.returncode, ended.stdout) == (2, "")
        assert documented(cause).fullmatch(ended.stderr.strip())

    def test_a_missing_address_of_kafka_is_one_line(self, stack: Stack) -> None:
        env = stack.environment | {"KAFKA_BOOTSTRAP_SERVERS": ""}
        ended = twofold(env, "publish", "-")
        assert ended.returncode == 2
        assert documented("`KAFKA_BOOTSTRAP_SERVERS` is not set").match(ended.stderr)

    def test_a_function_without_an_issuer_does_not_start(self) -> None:
        assert documented("the issuer's variables are not set").search(started("query", {"AUTH": "on"}))

    def test_an_unsupported_exporter_is_one_line(self) -> None:
        cause = "an exporter of OpenTelemetry is not supported"
        assert documented(cause).search(started("store", {"OTEL_METRICS_EXPORTER": "prometheus"}))

    @pytest.mark.parametrize(
        ("cause", "package", "function", "more"),
        [
            ("the extra `kafka` is missing", "confluent_kafka", "relay", {}),
            (
                "the extra `auth` is missing",
                "jwt",
                "audit",
                {"AUTH": "on", "AUTH_ISSUER": "i", "AUTH_AUDIENCE": "a", "AUTH_JWKS_URL": "https://i/keys"},
            ),
            ("the extra `pods` is missing", "kubernetes", "pod_events", {}),
        ],
    )
    def test_a_function_without_its_extra_does_not_start(
        self, cause: str, package: str, function: str, more: Mapping[str, str]
    ) -> None:
        code = f"import sys; sys.modules[{package!r}] = None; import functions.{function}.main"
        ended = run(code, FUNCTION_ENV | dict(more))
        assert ended.returncode == 1
        assert documented(cause).search(json.loads(ended.stderr.splitlines()[-1])["message"])

    def test_the_command_line_without_its_extra_names_the_extra(self) -> None:
        code = "import sys; sys.modules['rich'] = None; from twofold.cli import main; main()"
        ended = run(code, {}, "status")
        assert ended.returncode == 1
        assert documented("the extra `cli` is missing").fullmatch(ended.stderr.strip())


def certificate(folder: Path, host: str) -> tuple[Path, Path]:
    """Write a self-signed certificate, and return the files of the certificate and of its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    now = dt.datetime.now(dt.UTC)
    address = x509.IPAddress(ipaddress.ip_address(host)) if host[0].isdigit() else x509.DNSName(host)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    files = folder / f"{host}.crt", folder / f"{host}.key"
    files[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    unencrypted = serialization.NoEncryption()
    files[1].write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, unencrypted))
    return files


@contextmanager
def server(answer: Callable[[socket.socket], None]) -> Iterator[str]:
    """Serve every connection with `answer`, and yield the address."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def accept() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                threading.Thread(target=answer, args=[connection], daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield f"127.0.0.1:{listening.getsockname()[1]}"


def tls(files: tuple[Path, Path]) -> Callable[[socket.socket], None]:
    """Return an answer with TLS, which then waits."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*files)

    def answer(connection: socket.socket) -> None:
        with connection:
            try:
                with context.wrap_socket(connection, server_side=True) as secured:
                    secured.recv(1)
            except OSError:
                pass

    return answer


def http(connection: socket.socket) -> None:
    with connection:
        connection.recv(1024)
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")


def silent(connection: socket.socket) -> None:
    with connection:
        while connection.recv(1024):
            pass


def failed(cause: str, uri: str) -> str:
    """Run a command against this MongoDB, and return the line on standard error."""
    env = {"MONGODB_URI": uri, "MONGODB_TIMEOUT_S": "2", "MONGODB_DATABASE": "twofold"}
    ended = twofold(env)
    assert ended.returncode == 1, ended.stderr
    (line,) = ended.stderr.splitlines()
    assert documented(cause).fullmatch(line), line
    return line


class TestMongo:
    @pytest.mark.slow
    def test_an_address_without_a_server(self) -> None:
        port = free_port()
        line = failed("nothing listens at MongoDB's port", f"mongodb://someone:secret@127.0.0.1:{port}/")
        assert f"127.0.0.1:{port}" in line
        assert "secret" not in line
        failed("MongoDB's host is unknown", "mongodb://no.such.host.invalid:27017/")

    def test_a_server_that_is_no_mongodb(self) -> None:
        with server(http) as address:
            failed("another server listens at MongoDB's port", f"mongodb://{address}/")
        with server(silent) as address:
            failed("MongoDB's host does not answer", f"mongodb://{address}/")

    @pytest.mark.slow
    def test_a_wrong_user_or_replica_set(self, stack: Stack) -> None:
        uri = stack.function_environment("operator")["MONGODB_URI"]
        before, _, after = uri.rpartition("@")
        wrong = f"{before.rpartition(':')[0]}:wrong-password@{after}"
        assert "wrong-password" not in failed("MongoDB's password is wrong", wrong)
        hosts = after.partition("/")[0]
        failed("`MONGODB_URI` has no user", f"mongodb://{hosts}/?replicaSet=twofold")
        failed("the replica set has another name", f"mongodb://{hosts}/?replicaSet=other")
        failed("MongoDB's user lacks a permission", stack.function_environment("query")["MONGODB_URI"])
        failed("`tls=true`, and MongoDB uses no TLS", f"mongodb://{hosts}/?tls=true")

    @pytest.mark.slow
    def test_a_wrong_certificate(self, tmp_path: Path) -> None:
        here, other = certificate(tmp_path, "127.0.0.1"), certificate(tmp_path, "db.example")
        with server(tls(here)) as address:
            failed("MongoDB uses TLS, and `tls=true` is absent", f"mongodb://{address}/")
            failed("another CA signed MongoDB's certificate", f"mongodb://{address}/?tls=true&tlsCAFile={other[0]}")
        with server(tls(other)) as address:
            failed("MongoDB's certificate is for another host", f"mongodb://{address}/?tls=true&tlsCAFile={other[0]}")


class TestKafka:
    """`twofold status` shows everything but the lag without Kafka, and warns."""

    def warned(self, stack: Stack, cause: str, **env: str) -> None:
        ended = twofold(stack.function_environment("operator") | env, "status", "--json")
        assert ended.returncode == 0, ended.stderr
        assert json.loads(ended.stdout)["lag"] is None
        (line,) = ended.stderr.splitlines()
        assert documented(cause).search(line), line

    @pytest.mark.slow
    def test_an_address_without_a_broker(self, stack: Stack) -> None:
        port = free_port()
        self.warned(stack, "nothing listens at Kafka's port", KAFKA_BOOTSTRAP_SERVERS=f"127.0.0.1:{port}")
        self.warned(stack, "Kafka's host is unknown", KAFKA_BOOTSTRAP_SERVERS="no.such.host.invalid:9092")
        with server(silent) as address:
            self.warned(stack, "Kafka's host does not answer", KAFKA_BOOTSTRAP_SERVERS=address)
        self.warned(stack, "`KAFKA_BOOTSTRAP_SERVERS` is not set", KAFKA_BOOTSTRAP_SERVERS="")

    @pytest.mark.slow
    def test_a_wrong_certificate(self, stack: Stack, tmp_path: Path) -> None:
        here, other = certificate(tmp_path, "127.0.0.1"), certificate(tmp_path, "kafka.example")
        cause = "another CA signed Kafka's certificate, or Kafka uses no TLS"
        secure = {"KAFKA_SECURITY_PROTOCOL": "SSL", "KAFKA_SSL_CAFILE": str(other[0])}
        with server(tls(here)) as address:
            self.warned(stack, cause, KAFKA_BOOTSTRAP_SERVERS=address, **secure)

    @pytest.mark.parametrize("code", ["_AUTHENTICATION", "SASL_AUTHENTICATION_FAILED"])
    def test_a_wrong_password(self, code: str) -> None:
        """The broker of the tests has no users, so the error is made here. Kafka reports it beside `_TRANSPORT`."""
        kafka = client_module()
        settings = Settings.model_validate({"mongodb_uri": "mongodb://db/", "kafka_bootstrap_servers": "kafka:9092"})
        reported = ConnectionErrors()
        reported(kafka.KafkaError(kafka.KafkaError._ALL_BROKERS_DOWN))
        reported(kafka.KafkaError(getattr(kafka.KafkaError, code)))
        cause = reported.cause_of(kafka.KafkaError(kafka.KafkaError._TRANSPORT))
        assert documented("Kafka's password is wrong").fullmatch(diagnose(cause, settings))


def test_every_line_of_the_table_is_tried() -> None:
    """The tests above name every cause in the table."""
    assert len(TABLE) > 30
    source = Path(__file__).read_text()
    assert [cause for cause in TABLE if f'"{cause}"' not in source] == []
