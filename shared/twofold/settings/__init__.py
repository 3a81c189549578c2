"""Settings in groups. Each function reads the groups that it uses from its environment.

The variable of a setting is the field's name in capitals: `mongodb_uri` is `MONGODB_URI`. A function's own `Settings`
class lists its groups as base classes, so mypy finds a function that uses a group without reading it. A missing or
wrong variable gives `pydantic.ValidationError`. `environment.py` turns the error into a line for people.
"""

from typing import Annotated, Literal, Self, TypeVar

from pydantic import BeforeValidator, Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

Count = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0)]

_Word = TypeVar("_Word")
Words = Annotated[
    tuple[_Word, ...], NoDecode, BeforeValidator(lambda given: given.split() if isinstance(given, str) else given)
]
"""Words with white space between them."""

MAX_HOST_CHARS = 253
_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
HOST_NAME = rf"^{_LABEL}(?:\.{_LABEL})*$"
"""The pattern of a DNS name in lower case, of at most `MAX_HOST_CHARS`."""
HostName = Annotated[str, Field(pattern=rf"^\*$|{HOST_NAME}", max_length=MAX_HOST_CHARS)]
"""A DNS name in lower case, or `*` for every name."""


def _split_at_commas(given: object) -> object:
    """Return the names of a variable in lower case."""
    if not isinstance(given, str):
        return given
    return tuple(name.strip().lower() for name in given.split(",") if name.strip())


class Group(BaseSettings):
    """The base of all groups: frozen, silent about the values in an error, and built when it is first read."""

    model_config = SettingsConfigDict(frozen=True, hide_input_in_errors=True, defer_build=True)


class MongoSettings(Group):
    """The connection to MongoDB."""

    mongodb_uri: Annotated[SecretStr, Field(min_length=1)]
    mongodb_database: str = "twofold"
    mongodb_timeout_s: Seconds = 4.0
    """Seconds for an operation, fail-over included. A caller gets its 503 within 5 s, so it is shorter.
    An insert of events gets at most `LONGEST_INSERT`, 4 s, whatever this value is."""


class LogSettings(Group):
    """The log lines of a function."""

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """The level of Twofold's own loggers. At `DEBUG`, each request writes a line."""
    log_format: Literal["json", "console"] = "json"


class BodySettings(Group):
    """The bodies of requests in a process."""

    body_capacity_bytes: Count = 64 * 1024 * 1024
    """The most bytes of request bodies that a process holds while it reads and answers them. Beyond them, the answer is
    503. A body in a single piece, of 64 KiB at most, does not count, and a body alone is always taken."""
    body_timeout_s: Seconds = 30.0
    """The longest time for a body to arrive, in seconds. Then the answer is 503, and its bytes are free."""


class AuthSettings(Group):
    """Bearer tokens and their issuer."""

    auth: Literal["on", "off"] = "on"
    """`off` asks for no token. Every caller has every permission except `events:publish:reserved`. Each function
    writes this to its logs when it starts."""
    auth_issuer: str = ""
    """The `iss` of tokens. With `AUTH=on`, this setting and the next two are needed."""
    auth_audience: str = ""
    """The `aud` of tokens: Twofold's name at the issuer."""
    auth_jwks_url: str = ""
    """The address of the issuer's public keys, a JWK set (RFC 7517)."""
    auth_algorithms: Words[Literal["RS256", "PS256", "ES256", "EdDSA"]] = ("RS256", "ES256")
    """The allowed signature algorithms, without symmetric algorithms."""
    auth_roles_claim: str = "roles"
    """The claim with the permissions. A dot leads into an object: `realm_access.roles`."""
    auth_leeway_s: Annotated[float, Field(ge=0)] = 30.0
    """The largest accepted difference between the issuer's clock and this machine's, in seconds."""
    auth_keys_fresh_s: Seconds = 300.0
    """Seconds until keys are fetched again, and until a checked token is checked again."""


class TopicSettings(Group):
    """The Kafka topic between `publish` and `store`."""

    kafka_topic: str = "twofold.events"


class KafkaSettings(TopicSettings):
    """The connection to Kafka."""

    kafka_bootstrap_servers: str = ""
    kafka_consumer_group: str = "twofold-store"
    """The consumer group of the KafkaSource behind `store`."""
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = None
    kafka_sasl_username: str | None = None
    kafka_sasl_password: SecretStr | None = None
    kafka_ssl_cafile: str | None = None


class RecordSettings(Group):
    """The sizes of Kafka records, and of the deliveries that a KafkaSource makes of them."""

    max_record_bytes: Count = 1_000_000
    """The largest Kafka record of Twofold, headers included."""
    max_delivery_bytes: Annotated[int, Field(ge=1, le=15 * 1024 * 1024)] = 12 * 1024 * 1024
    """The largest delivery that `store` reads. A dead letter keeps the delivery, and MongoDB takes 16 MB a document."""

    @property
    def max_message_bytes(self) -> int:
        """The topic's `max.message.bytes`: the largest record that any producer can put there."""
        return self.max_record_bytes + 64 * 1024

    @model_validator(mode="after")
    def _dead_letter_holds_record(self) -> Self:
        if self.max_message_bytes > self.max_delivery_bytes:
            raise ValueError(
                f"MAX_DELIVERY_BYTES must be at least {self.max_message_bytes}, which is MAX_RECORD_BYTES and 64 KiB: "
                "a record that is larger than every dead letter would be lost"
            )
        return self


class SendSettings(KafkaSettings, RecordSettings):
    """Records on their way to Kafka, behind the answers of `publish`."""

    send_capacity: Count = 10_000
    send_capacity_bytes: Count = 64 * 1024 * 1024
    """The bounds of the records that wait for Kafka's acknowledgement. Beyond them, the relay sends the events."""
    send_timeout_s: Seconds = 20.0
    """Seconds that a record waits for Kafka's acknowledgement. Then the relay sends the event."""


class SenderSettings(SendSettings):
    """`SendSettings` of a function that must reach Kafka: it does not start without a broker's address."""

    kafka_bootstrap_servers: Annotated[str, Field(min_length=1)]


class GroupCommitSettings(Group):
    """Group commit: a single write for many waiting callers."""

    group_commit_events: Count = 500
    group_commit_wait_ms: Annotated[float, Field(ge=0)] = 1.0
    group_commit_writes: Count = 2
    """The number of groups in writing at once. While MongoDB writes one group, the function decodes the next."""
    group_commit_capacity: Count = 10_000
    group_commit_capacity_bytes: Count = 64 * 1024 * 1024
    """The bounds of the events that wait or are being written, as request and as document. Beyond them, the answer is
    503. When no event waits, a request of any size is taken."""


class StoreSettings(RecordSettings, GroupCommitSettings):
    """The sink of the KafkaSource: group commit, and the sizes of deliveries."""


class PublishSettings(SendSettings, GroupCommitSettings, MongoSettings):
    """The publisher: requests, group commit, MongoDB, and records to Kafka."""

    max_body_bytes: Count = 4 * 1024 * 1024
    """The largest request body in `publish`, in bytes. A batch has a single body."""
    max_batch_events: Annotated[int, Field(ge=1, le=5000)] = 1000
    """The most events of a batch. Beyond 5,000, their results would not fit into an answer of 1 MiB."""
    max_future_s: Seconds = 86_400.0
    """The most seconds by which an event's `time` may be ahead of the function's clock. Readers show the newest time
    first, so an event of the year 9999 would stand there until it expires."""
    webhook_origins: Annotated[tuple[HostName, ...], NoDecode, BeforeValidator(_split_at_commas)] = ()
    """The senders that may register `publish` as a webhook: DNS names with commas between them. `*` allows every
    sender. A registered sender still needs a token for each event."""

    @model_validator(mode="after")
    def _queue_holds_batch(self) -> Self:
        if self.max_batch_events > self.group_commit_capacity:
            raise ValueError(
                "GROUP_COMMIT_CAPACITY must be at least MAX_BATCH_EVENTS: a larger batch would never be taken"
            )
        return self


class RelaySettings(SendSettings, MongoSettings):
    """The relay and the retention of `events`."""

    retention_days: Seconds = 30.0
    """Days that a document stays in `events` after the relay read it back from `event_store`."""
    relay_first_look_s: Seconds = 30.0
    """Seconds between an event's insert and the relay's first look into `event_store`."""
    relay_back_off_s: Seconds = 60.0
    """Seconds between the first resending and the next look. Each wait doubles, up to 60 times the first."""
    relay_clock_skew_s: Annotated[float, Field(ge=0)] = 30.0
    """Seconds by which a publisher's clock may differ from MongoDB's. Beyond them, events can be sent twice."""
    relay_max_tries: Count = 30
    """The number of resendings after which an event is `stuck`: about one day with the default back-off."""
    relay_batch: Count = 1000
    """The number of outbox entries in a look, at most `send_capacity`."""
    relay_bytes: Count = 8 * 1024 * 1024
    """The bytes of events, by their size in MongoDB, that the relay loads and sends at a time."""
    relay_budget_s: Seconds = 50.0
    """Seconds of a run: less than the minute between two runs."""


class QuerySettings(Group):
    """The bounds of a reader's query."""

    query_timeout_s: Seconds = 3.0
    """The longest time of a query, in seconds. MongoDB stops it too."""
    search_s: Seconds = 1.0
    """Seconds that one request searches through unwanted events, at most half of `query_timeout_s`. The answer then
    names the place where the search stopped."""
    search_keys: Count = 500
    """The number of index keys in the first chunk of a search. Later chunks are larger."""
    page_bytes: Count = 4 * 1024 * 1024
    """The size in MongoDB at which a page, also a page of the feed, ends."""
    statistics_days: Seconds = 31.0
    """The longest range of statistics, in days."""


class StreamSettings(Group):
    """The live streams of `query`."""

    stream_s: Seconds = 240.0
    """Seconds of a live stream. Then its reader connects again."""
    stream_heartbeat_s: Seconds = 15.0
    streams: Count = 100
    """The number of live streams in a process."""
    streams_each: Count = 20
    """The number of live streams of one caller in a process."""


class AdminSettings(QuerySettings):
    """The figures and exports of `admin`."""

    export_timeout_s: Seconds = 30.0
    """The longest time of MongoDB for a part of an export, in seconds."""
    statistics_timeout_s: Seconds = 10.0
    """The longest time of an answer with statistics, in seconds."""
    statistics_sample: Count = 1000
    """The number of finished aggregates, the latest ones, in the mean processing time."""
    error_words: Words[str] = ("error", "failed", "timed_out")
    """An event is an error if the last word of its type is one of these: `order.failed`."""
    finishing_words: Words[str] = ("cancelled", "completed", "failed", "succeeded", "timed_out")
    """An event finishes its aggregate if the last word of its type is one of these."""


class AuditSettings(QuerySettings):
    """The security events of `audit`."""

    security_types: Annotated[Words[str], Field(min_length=1, max_length=50)] = (
        *("user.registered", "user.login", "user.login_failed", "user.logout", "user.password_changed"),
        *("user.role_changed", "user.deleted", "token.revoked", "access.denied", "security.violation"),
    )
    """The event types of the security events in `audit`."""


class PodSettings(Group):
    """The pods for `pod_events`."""

    pods_cluster: str = "kubernetes"
    """The cluster's name in pod events."""
    pods_aggregate_keys: Words[str] = ("twofold.dev/aggregate-id",)
    """Labels or annotations of a pod. The first key in a pod gives the `aggregate_id` of its events."""
    pods_correlation_keys: Words[str] = ("twofold.dev/correlation-id",)
    pods_user_keys: Words[str] = ("twofold.dev/user-id",)
    pods_ignored_namespaces: Words[str] = ()
    """Namespaces without pod events. The label or annotation `twofold.dev/ignore: "true"` excludes a pod."""
    pods_namespace: str = ""
    """The namespace to list. An empty value lists every namespace."""
    pods_selector: str = "twofold.dev/watch=true"
    """The label selector of the listing, as in the ApiServerSource. Empty selects all pods."""
    pods_page: Count = 250
    """The most pods in a page of the listing."""
    pods_page_bytes: Count = 8 * 1024 * 1024
    """The bytes of JSON at which the listing asks for a smaller page. A page of a single pod may be larger."""
    pods_budget_s: Seconds = 30.0
    """Seconds of a listing: less than the minute between two pings. The last answer may take 20 s more."""
    kubernetes_api_server: str = ""
    """The URL of the API server. Empty means `KUBECONFIG`, or else the cluster of this pod."""
    kubernetes_token: SecretStr = SecretStr("")
    kubernetes_ca_file: str = ""
    kubeconfig: str = ""


class SetupSettings(KafkaSettings, RecordSettings, MongoSettings):
    """The servers for set-up, and the topic to create."""

    setup_topic_partitions: Count = 4
    setup_topic_replication: Count = 1
    setup_topic_min_insync_replicas: Count = 1
    """The number of replicas that must have a record before Kafka acknowledges it. With 3 replicas, 2 survive the loss
    of one replica."""
    setup_topic_retention_days: Seconds = 7.0


class Settings(
    PublishSettings,
    StoreSettings,
    RelaySettings,
    AdminSettings,
    AuditSettings,
    StreamSettings,
    PodSettings,
    SetupSettings,
    AuthSettings,
    BodySettings,
    LogSettings,
):
    """All groups: for application code, the command line and the local stack."""
