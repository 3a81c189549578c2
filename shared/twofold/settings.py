"""One frozen `Settings`, read from the environment; a missing or wrong one fails at start, by name."""

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


class Settings(BaseSettings):
    """What a function is told by its environment: each variable is its field's name in capitals.

    Raises `pydantic.ValidationError`, which names every field that is missing or wrong, and shows none of their values.
    """

    model_config = SettingsConfigDict(frozen=True, hide_input_in_errors=True)

    mongodb_uri: SecretStr
    mongodb_database: str = "twofold"
    mongodb_timeout_s: Seconds = 4.0
    """How long one operation may take in all, fail-over included. Below the 5 s in which a caller gets its 503."""
    retention_days: Seconds = 30.0
    """How long a document stays in `events` after it was read back from `event_store`."""

    auth: Literal["on", "off"] = "on"
    """Off lets everybody do everything, in the functions that people reach; each says so in its log when it starts."""
    auth_issuer: str = ""
    """The `iss` of tokens; needed, as the next two, where tokens are asked for."""
    auth_audience: str = ""
    """The `aud` of tokens: Twofold's name at the issuer."""
    auth_jwks_url: str = ""
    """Where the issuer's public keys are: a JWK set."""
    auth_algorithms: Words[Literal["RS256", "PS256", "ES256", "EdDSA"]] = ("RS256", "ES256")
    """What a token may be signed with; asymmetric ones only."""
    auth_roles_claim: str = "roles"
    """Where a token has its rights; a dot leads into an object: `realm_access.roles`."""
    auth_leeway_s: Annotated[float, Field(ge=0)] = 30.0
    """How far the issuer's clock may be off."""
    auth_keys_fresh_s: Seconds = 300.0
    """How long keys, and tokens that were checked, are believed without asking again."""

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """Of Twofold's own loggers. At debug, each request is a line."""
    log_format: Literal["json", "console"] = "json"

    kafka_bootstrap_servers: str = ""
    kafka_topic: str = "twofold.events"
    kafka_consumer_group: str = "twofold-store"
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = None
    kafka_sasl_username: str | None = None
    kafka_sasl_password: SecretStr | None = None
    kafka_ssl_cafile: str | None = None

    max_body_bytes: Count = 4 * 1024 * 1024
    """The largest request that `publish` reads; a batch counts as one."""
    max_batch_events: Count = 1000
    max_letter_bytes: Annotated[int, Field(ge=1, le=15 * 1024 * 1024)] = 12 * 1024 * 1024
    """The largest delivery that `store` reads: poison too must fit into a dead letter, and MongoDB takes 16 MB."""
    max_record_bytes: Count = 1_000_000
    """The largest Kafka record, headers included; the topic takes `max_message_bytes`, which is more."""

    group_commit_events: Count = 500
    group_commit_wait_ms: Annotated[float, Field(ge=0)] = 1.0
    group_commit_writes: Count = 2
    """How many groups are written at once: while MongoDB works on one, the next is read and checked."""
    group_commit_capacity: Count = 10_000
    group_commit_capacity_bytes: Count = 64 * 1024 * 1024
    """How much may wait to be written, or be on its way to MongoDB, as it came and as its document; beyond that, 503.

    A request that comes when nothing waits is taken, however large.
    """
    send_capacity: Count = 10_000
    send_capacity_bytes: Count = 64 * 1024 * 1024
    """How much may wait for Kafka's acknowledgement; beyond that, events are left to the relay."""
    send_timeout_s: Seconds = 20.0
    """How long a record may wait for Kafka's acknowledgement; then it is left to the relay."""

    query_timeout_s: Seconds = 3.0
    """How long one query of a reader may take, in the server too."""
    statistics_days: Seconds = 31.0
    """Of how many days, at most, statistics are asked for."""
    stream_s: Seconds = 240.0
    """How long a live stream goes on before its reader is to connect again."""
    stream_heartbeat_s: Seconds = 15.0
    streams: Count = 100
    """How many live streams a process serves at once."""
    streams_each: Count = 20
    """How many of them one caller may have."""
    search_s: Seconds = 1.0
    """How long one request may look through events that aren't wanted, at most half of `query_timeout_s`; the answer
    says where it stopped."""
    search_keys: Count = 500
    """How many index keys such a search looks through at first, before it looks at its watch; then more and more."""
    page_bytes: Count = 4 * 1024 * 1024
    """With which size, in MongoDB, a page ends, and a page of the feed."""

    export_timeout_s: Seconds = 30.0
    """How long MongoDB may take for each piece of an export."""
    statistics_timeout_s: Seconds = 10.0
    """How long an admin's statistics may take."""
    statistics_sample: Count = 1000
    """Of how many finished aggregates, at most, the mean processing time is computed: of the latest."""
    error_words: Words[str] = ("error", "failed", "timed_out")
    """The last word of the types that count as errors: `order.failed`."""
    finishing_words: Words[str] = ("cancelled", "completed", "failed", "succeeded", "timed_out")
    """The last word of the types that finish an aggregate."""
    security_types: Annotated[Words[str], Field(min_length=1, max_length=50)] = (
        *("user.registered", "user.login", "user.login_failed", "user.logout", "user.password_changed"),
        *("user.role_changed", "user.deleted", "token.revoked", "access.denied", "security.violation"),
    )
    """The types of the events that `audit` shows as security events."""

    relay_first_look_s: Seconds = 30.0
    """How long after its insert an event is first looked for in `event_store`."""
    relay_back_off_s: Seconds = 60.0
    """How long after its first resending an event is looked for again. Each wait doubles, up to 60 times the first."""
    relay_clock_skew_s: Annotated[float, Field(ge=0)] = 30.0
    """How far the publishers' clocks, which stamp records, may be from MongoDB's without an event being sent twice."""
    relay_batch: Count = 1000
    """How many marks are looked at together; no more than `send_capacity`."""
    relay_bytes: Count = 8 * 1024 * 1024
    """How much of the events, by their size in MongoDB, is loaded and sent again at a time."""
    relay_budget_s: Seconds = 50.0
    """How long one run may go on: less than the minute between two runs."""

    pods_cluster: str = "kubernetes"
    """What pod events call the cluster."""
    pods_aggregate_keys: Words[str] = ("twofold.dev/aggregate-id",)
    """Labels or annotations of a pod: the first of them that is there is its events' `aggregate_id`."""
    pods_correlation_keys: Words[str] = ("twofold.dev/correlation-id",)
    pods_user_keys: Words[str] = ("twofold.dev/user-id",)
    pods_ignored_namespaces: Words[str] = ()
    """Pods in these have no events; nor has one with the label or annotation `twofold.dev/ignore: "true"`."""
    pods_namespace: str = ""
    """Whose pods are listed; empty for those of all."""
    pods_selector: str = "twofold.dev/watch=true"
    """Which pods are listed, by their labels: the ApiServerSource's selector. Empty for all."""
    pods_page: Count = 250
    """How many pods are asked for, and held, at a time."""
    pods_budget_s: Seconds = 30.0
    """How long one listing may go on: less than the minute between two pings. The last answer may take 20 s more."""
    kubernetes_api_server: str = ""
    """Where pods are listed: a URL. Empty: what `KUBECONFIG` says, or else the cluster that this runs in."""
    kubernetes_token: SecretStr = SecretStr("")
    kubernetes_ca_file: str = ""
    kubeconfig: str = ""

    setup_topic_partitions: Count = 4
    setup_topic_replication: Count = 1
    setup_topic_min_insync_replicas: Count = 1
    """How many replicas must have a record before it is acknowledged; with 3 replicas, 2 outlive the loss of one."""
    setup_topic_retention_days: Seconds = 7.0

    @property
    def max_message_bytes(self) -> int:
        """The topic's `max.message.bytes`: the largest record that anybody can put there."""
        return self.max_record_bytes + 64 * 1024

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.max_message_bytes > self.max_letter_bytes:
            raise ValueError(
                f"MAX_LETTER_BYTES must be at least {self.max_message_bytes}, which is MAX_RECORD_BYTES and 64 KiB: "
                "a record that no letter can hold would be lost"
            )
        if self.max_batch_events > self.group_commit_capacity:
            raise ValueError(
                "GROUP_COMMIT_CAPACITY must be at least MAX_BATCH_EVENTS: a larger batch would never be taken"
            )
        return self


class SenderSettings(Settings):
    """The same of who sends to Kafka: it does not start without a broker's address."""

    kafka_bootstrap_servers: Annotated[str, Field(min_length=1)]
