"""What a deployment must say, in one place: flags and WATTSTREAM_* variables end here.

Nothing is asked that can be found out: with no addresses given, everything is embedded on loopback.
"""

import json
import os
import re
import secrets as random
import socket
import ssl
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

import clickhouse_connect
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import Error as ClickHouseError
from pydantic import AfterValidator, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from schemas.errors import UsageError, WattStreamError

DATABASE = "wattstream"
User = Literal["writer", "planner", "viewer"]
USERS: tuple[User, ...] = ("writer", "planner", "viewer")
ADMIN = "admin"

# Offsets from port_base; worker i answers at WORKER + i - 1.
PORTS = {"kafka": 0, "controller": 1, "clickhouse": 2, "board": 3, "dagster": 4, "code": 5}
WORKER_PORT = 10


def _with_certificates(file: Path) -> Path:
    try:
        ssl.create_default_context(cafile=file)
    except OSError as error:  # ssl.SSLError is one
        raise ValueError(f"is no file of certificates in PEM form ({error.strerror or error})") from None
    return file


def _without_password(url: str) -> str:
    if "@" in url.rpartition("//")[2].partition("/")[0]:
        raise ValueError("an address is shown in logs: give user and password by their own variables")
    return url


CertificateFile = Annotated[Path, AfterValidator(_with_certificates)]
Address = Annotated[str, AfterValidator(_without_password)]


class Settings(BaseSettings):
    """The settings of one stack; every field is also a variable WATTSTREAM_<NAME>."""

    model_config = SettingsConfigDict(env_prefix="WATTSTREAM_", extra="ignore")

    home: Path = Field(Path(".wattstream"), description="Where all state lives.")
    port_base: int = Field(18800, ge=1024, le=65000, description="First of the 20 ports of an embedded stack.")

    kafka: str | None = Field(None, description="Bootstrap servers of your own Kafka; embedded if not given.")
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="How your Kafka is spoken to: PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL."
    )
    kafka_sasl_mechanism: Literal["SCRAM-SHA-256", "SCRAM-SHA-512", "PLAIN"] = Field(
        "SCRAM-SHA-512", description="With SASL: SCRAM-SHA-256, SCRAM-SHA-512 or PLAIN."
    )
    kafka_username: str | None = Field(None, description="With SASL: the user.")
    kafka_password: SecretStr | None = Field(None, description="With SASL: the password.")
    kafka_ca_file: CertificateFile | None = Field(
        None, description="With TLS: the certificate (PEM) of the authority, if not a public one."
    )
    partitions: int = Field(2, ge=1, le=10_000, description="Partitions of a topic, fixed when it is created.")
    replication: int = Field(1, ge=1, le=9, description="Replicas of a topic.")
    message_max_bytes: int = Field(
        8 * 1024 * 1024, description="Largest message, bytes; the broker's limit is the same."
    )

    clickhouse: Address | None = Field(None, description="URL of your own ClickHouse; embedded if not given.")
    clickhouse_ca_file: CertificateFile | None = Field(
        None, description="With https: the certificate (PEM) of the authority, if not a public one."
    )
    clickhouse_writer_password: SecretStr | None = Field(
        None,
        description="Password of `writer` (workers, migrations) in your ClickHouse; embedded: generated.",
    )
    clickhouse_planner_password: SecretStr | None = Field(
        None, description="Password of `planner` (forecasts) in your ClickHouse; embedded: generated."
    )
    clickhouse_viewer_password: SecretStr | None = Field(
        None, description="Password of `viewer` (dashboards, people) in your ClickHouse; embedded: generated."
    )
    clickhouse_admin: bool = Field(
        False, description="Give the embedded ClickHouse the user `admin`, who makes databases and tables of your own."
    )
    clickhouse_timeout_seconds: float = Field(60, gt=0, description="Longest wait for an answer of ClickHouse.")

    grafana: Address | None = Field(None, description="URL of your Grafana, to publish the dashboards to.")
    grafana_token: SecretStr | None = Field(None, description="Token of a Grafana service account, role Admin.")
    grafana_clickhouse: Address | None = Field(None, description="ClickHouse's URL as Grafana reaches it, if another.")

    flush_seconds: float = Field(
        1.0, gt=0, description="From one flush to the next; up to twice that where flushes take long."
    )
    flush_rows: int = Field(350_000, ge=1, description="Rows that make a flush at once.")
    group_timeout_seconds: float = Field(
        # Longer than a start of a worker takes on a busy machine (6 s): one that was killed has its partitions back
        # before Kafka moves them. A broker takes no less than 6 s unless it is told (group.min.session.timeout.ms).
        10.0,
        gt=0,
        description="Silence after which a worker's partitions move to others; who starts again before keeps them.",
    )
    standstill_seconds: float = Field(
        120.0, gt=0, description="Time without progress, while records wait, that turns a worker's /health red."
    )
    audit_seconds: float = Field(60.0, gt=0, description="How often closed ranges are counted again.")
    dedupe: bool = Field(True, description="Drop events whose identity was seen before.")
    dedupe_bytes: int = Field(256 * 1024 * 1024, ge=0, description="Memory for identities in a worker, bytes.")

    archive: Path | None = Field(None, description="Where the log is archived; `archive` in the home if not given.")

    simulate: bool = Field(True, description="Run the simulated national network.")
    rate: float = Field(200.0, ge=0, description="Events a second of the simulated network.")
    history: int = Field(35, ge=0, le=3650, description="Days of history that the simulator lays down first.")
    seed: int = Field(1, description="Seed of the simulated network.")
    workers: int = Field(1, ge=1, le=9, description="Stream workers.")

    @model_validator(mode="after")
    def _names_its_user(self) -> Self:
        if self.kafka_security_protocol.startswith("SASL") and not (self.kafka_username and self.kafka_password):
            raise ValueError(
                f"WATTSTREAM_KAFKA_SECURITY_PROTOCOL is {self.kafka_security_protocol}: give WATTSTREAM_KAFKA_USERNAME "
                "and WATTSTREAM_KAFKA_PASSWORD too"
            )
        return self

    @property
    def bootstrap(self) -> str:
        """Kafka's bootstrap servers."""
        return self.kafka or f"127.0.0.1:{self.port('kafka')}"

    @property
    def clickhouse_url(self) -> str:
        """ClickHouse's HTTP address."""
        return (self.clickhouse or f"http://127.0.0.1:{self.port('clickhouse')}").rstrip("/")

    def port(self, part: str) -> int:
        """The port of an embedded part: kafka, controller, clickhouse, board, dagster, code, worker, worker-2, …"""
        if part.startswith("worker"):
            number = int(part.partition("-")[2] or 1)
            return self.port_base + WORKER_PORT + number - 1
        return self.port_base + PORTS[part]

    @property
    def archive_folder(self) -> Path:
        """Where the log is archived."""
        return self.archive or self.home / "archive"

    @property
    def secrets_file(self) -> Path:
        """Where the generated passwords are, mode 0600."""
        return self.home / "secrets.json"

    def password(self, user: User) -> str:
        """The password of a ClickHouse user: as given, else generated at the first start."""
        given: SecretStr | None = getattr(self, f"clickhouse_{user}_password")
        if given is not None:
            return given.get_secret_value()
        if self.clickhouse is not None:
            raise UsageError(
                f"WATTSTREAM_CLICKHOUSE is set but WATTSTREAM_CLICKHOUSE_{user.upper()}_PASSWORD is not: "
                f"give the password of the user {user!r} there."
            )
        return generated_passwords(self.secrets_file)[user]

    def passwords(self) -> dict[str, str]:
        """The password of every ClickHouse user there is."""
        passwords: dict[str, str] = {user: self.password(user) for user in USERS}
        if self.clickhouse_admin and self.clickhouse is None:
            passwords[ADMIN] = generated_passwords(self.secrets_file, admin=True)[ADMIN]
        return passwords

    def kafka_client(self, **more: Any) -> dict[str, Any]:
        """A librdkafka configuration that reaches Kafka; ``more`` keys are written with ``_`` for ``.``."""
        config: dict[str, Any] = {
            "bootstrap.servers": self.bootstrap,
            "security.protocol": self.kafka_security_protocol,
            "broker.address.family": "v4" if self.kafka is None else "any",
        }
        if self.kafka_security_protocol.startswith("SASL"):
            config["sasl.mechanism"] = self.kafka_sasl_mechanism
            config["sasl.username"] = self.kafka_username or ""
            config["sasl.password"] = self.kafka_password.get_secret_value() if self.kafka_password else ""
        if self.kafka_ca_file:
            config["ssl.ca.location"] = str(self.kafka_ca_file)
        return config | {key.replace("_", "."): value for key, value in more.items()}

    def clickhouse_client(self, user: User, **more: Any) -> Client:
        """A clickhouse-connect client of that user: for all threads, since it has no session.

        :raises WattStreamError: where ClickHouse doesn't answer, or refuses the user.
        """
        options: dict[str, Any] = {
            "database": DATABASE,
            "autogenerate_session_id": False,
            "send_receive_timeout": self.clickhouse_timeout_seconds,
            "connect_timeout": 5,
            "query_limit": 0,
            "compress": self.clickhouse is not None,  # on loopback compression only costs CPU
        }
        host, port, secure = split_url(self.clickhouse_url)
        try:
            return clickhouse_connect.get_client(  # pyright: ignore[reportUnknownMemberType] (its **kwargs)
                host=host,
                port=port,
                secure=secure,
                username=user,
                password=self.password(user),
                ca_cert=str(self.clickhouse_ca_file) if secure and self.clickhouse_ca_file else None,
                **(options | more),
            )
        except ClickHouseError as error:
            if "CERTIFICATE_VERIFY_FAILED" in str(error):
                raise WattStreamError(self.untrusted_clickhouse()) from error
            raise WattStreamError(
                f"ClickHouse at {self.clickhouse_url} did not take user {user!r}: {error}. "
                "Is it running (wattstream status)? Is the password the right one?"
            ) from error

    def untrusted_clickhouse(self) -> str:
        """What to say where the certificate of ClickHouse can't be verified."""
        return (
            f"The certificate of ClickHouse at {self.clickhouse_url} is of no authority that is trusted here, or for "
            "another name: give its authority's certificate in WATTSTREAM_CLICKHOUSE_CA_FILE, and the name it is for."
        )


def load(**given: Any) -> Settings:
    """Settings from what a command was given (None = not given), the environment and the defaults.

    :raises UsageError: naming each setting that is off.
    """
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        lines = [_told(off["loc"], off["msg"], off["input"]) for off in error.errors()]
        # Not "from error": its own words hold what was given.
        raise UsageError("These settings are off (flag, or WATTSTREAM_* variable): " + "; ".join(lines)) from None


def _told(place: tuple[int | str, ...], message: str, given: object) -> str:
    """One setting that is off; a password is not told again."""
    message = message.removeprefix("Value error, ")
    if not place:  # the settings together: what was given is all of them
        return message
    return f"{'.'.join(map(str, place))}: {message} (given: {re.sub(r'[^/]*@', '***@', repr(given))})"


def split_url(url: str) -> tuple[str, int, bool]:
    """(host, port, TLS) of an http or https URL.

    :raises UsageError: where it is not one.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise UsageError(f"{url!r} is not an address: {error}") from error
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise UsageError(f"{url!r} is not an http:// or https:// address.")
    return parts.hostname, port or (8443 if parts.scheme == "https" else 8123), parts.scheme == "https"


def generated_passwords(file: Path, admin: bool = False) -> dict[str, str]:
    """The passwords in ``file``, made at the first call; whole or not there, readable by its owner alone.

    With ``admin`` that of the user admin too, which joins a file that doesn't have it.

    :raises WattStreamError: where the file is there but can't be read.
    """
    users: tuple[str, ...] = (*USERS, ADMIN) if admin else USERS
    if not file.exists():
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = _draft(file, {user: random.token_urlsafe(24) for user in users})
        try:
            os.link(draft, file)  # fails where another process was first: then its passwords count
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    try:
        passwords = json.loads(file.read_text())
        if admin and ADMIN not in passwords:
            passwords |= {ADMIN: random.token_urlsafe(24)}
            _draft(file, passwords).replace(file)
        return {user: str(passwords[user]) for user in users}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WattStreamError(
            f"{file} is damaged ({error}). Restore it, or delete it to make new passwords at the next start."
        ) from error


def _draft(file: Path, passwords: dict[str, str]) -> Path:
    """The passwords in a file of their own beside ``file``."""
    draft = file.with_name(f".{file.name}.{socket.gethostname()}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        json.dump(passwords, stream)
    return draft
