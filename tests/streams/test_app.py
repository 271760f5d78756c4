"""The worker reaches Kafka by the same settings as everything else."""

import re
import subprocess
import sys
from pathlib import Path

import certifi
import faust
import pytest
from faust.transport.drivers.aiokafka import credentials_to_aiokafka_auth

from schemas.settings import Settings
from streams.app import credentials, member_name


def made(protocol: str, home: Path) -> Settings:
    return Settings.model_validate(
        {
            "home": home,
            "kafka_security_protocol": protocol,
            "kafka_username": "wattstream",
            "kafka_password": "secret",
            "kafka_ca_file": certifi.where(),
        }
    )


@pytest.mark.parametrize("protocol", ["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"])
def test_the_worker_speaks_to_kafka_as_the_settings_say(protocol: str, tmp_path: Path) -> None:
    settings = made(protocol, tmp_path)
    auth = credentials_to_aiokafka_auth(credentials(settings))
    librdkafka = settings.kafka_client()
    assert auth["security_protocol"] == librdkafka["security.protocol"]
    assert auth.get("sasl_mechanism") == librdkafka.get("sasl.mechanism")
    assert auth.get("sasl_plain_username") == librdkafka.get("sasl.username")
    assert auth.get("sasl_plain_password") == librdkafka.get("sasl.password")
    assert (auth.get("ssl_context") is not None) == protocol.endswith("SSL")


def test_a_password_is_not_in_what_the_worker_prints(tmp_path: Path) -> None:
    given = credentials(made("SASL_SSL", tmp_path))
    assert isinstance(given, faust.SASLCredentials)
    assert "secret" not in repr(given)


def test_a_worker_is_the_same_member_for_as_long_as_the_topics_are_the_same(tmp_path: Path) -> None:
    settings, topics = Settings(home=tmp_path), {"power": "a", "tokens": "b"}
    name = member_name(settings, 1, topics)
    assert member_name(settings, 1, dict(reversed(topics.items()))) == name
    others = [
        member_name(settings, 2, topics),
        member_name(settings, 1, topics | {"tokens": "made anew"}),
        member_name(settings, 1, topics | {"links": "c"}),
        member_name(Settings(home=tmp_path / "another"), 1, topics),
    ]
    assert len({name, *others}) == 5
    assert re.fullmatch(r"[\w.-]{1,249}", name), "what Kafka takes"


def test_without_pandas_pyarrow_does_all_that_a_worker_asks_of_it() -> None:
    """In a process of its own: pyarrow looks for it once, at the first value that it is asked to make."""
    code = """
import sys
from streams.app import NoPandas
sys.meta_path.insert(0, NoPandas())
import numpy as np
import pyarrow as pa
assert pa.scalar("x").as_py() == "x"
assert np.asarray(pa.array([1, 2])).tolist() == [1, 2]
assert "pandas" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
