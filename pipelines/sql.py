"""A query as viewer, its answer streamed as it comes."""

import ssl
from collections.abc import Iterator

import httpx

from schemas.errors import WattStreamError
from schemas.settings import DATABASE, Settings

# The server ends an answer that failed under way with the exception, 16 KiB of text at most, between two markers.
_MARKER = b"__exception__"
_TAIL_BYTES = 16 * 1024 + 512


def stream_query(settings: Settings, query: str, output_format: str) -> Iterator[bytes]:
    """The answer in ClickHouse's format of that name, unless the query names one itself.

    :raises WattStreamError: with the server's words where the query fails, also when part of the answer is out already.
    """
    headers = {"X-ClickHouse-User": "viewer", "X-ClickHouse-Key": settings.password("viewer")}
    parameters = {"database": DATABASE, "default_format": output_format}
    trusted = settings.clickhouse_ca_file
    timeout = httpx.Timeout(settings.clickhouse_timeout_seconds, connect=5, read=None)
    try:
        with httpx.stream(
            "POST",
            settings.clickhouse_url,
            params=parameters,
            headers=headers,
            content=query.encode(),
            timeout=timeout,
            verify=ssl.create_default_context(cafile=trusted) if trusted else True,
        ) as response:
            if response.status_code != 200:
                raise WattStreamError(
                    response.read().decode(errors="replace").strip() or f"HTTP {response.status_code}"
                )
            yield from _without_exception(response)
    except httpx.ConnectError as error:
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            raise WattStreamError(settings.untrusted_clickhouse()) from error
        raise WattStreamError(
            f"ClickHouse does not answer at {settings.clickhouse_url}: is it running (wattstream status), "
            "and are --home and --port-base those of the stack?"
        ) from error
    except httpx.HTTPError as error:
        raise WattStreamError(f"The answer of ClickHouse broke off: {error}") from error


def _without_exception(response: httpx.Response) -> Iterator[bytes]:
    tag = response.headers.get("X-ClickHouse-Exception-Tag", "").encode()
    held = b""
    for chunk in response.iter_bytes():
        held += chunk
        if len(held) > 2 * _TAIL_BYTES or not tag:
            out = held if not tag else held[:-_TAIL_BYTES]
            held = held[len(out) :]
            yield out
    answer, marker, rest = held.partition(_MARKER + b"\r\n" + tag) if tag else (held, b"", b"")
    if answer:
        yield answer.removesuffix(b"\r\n") if marker else answer
    if marker:
        message = rest.partition(_MARKER)[0].strip().removesuffix(tag).decode(errors="replace").strip()
        raise WattStreamError(message)
