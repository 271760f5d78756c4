"""The house rules of the board's web server: who may ask, what a page may load, and how ECharts gets there."""

import gzip
import hashlib
import re
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from schemas.errors import WattStreamError
from schemas.loopback import is_named, is_of_another_site

HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}

A_YEAR = 31_536_000


class HouseRules:
    """Only requests to a loopback name, and none of another site's page; strict headers."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def strict(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if not is_named(host):
            words = f"The board answers to localhost only, not to {host[:100]!r}. A proxy must send it Host: localhost."
            await PlainTextResponse(words, 421)(scope, receive, strict)
            return
        if is_of_another_site(scope["method"], lambda name: headers.get(name, ""), links=True):
            words = "The board answers its own pages only. A page of another site may link to it, and no more."
            await PlainTextResponse(words, 403)(scope, receive, strict)
            return
        await self._app(scope, receive, strict)


def prefix(request: Request) -> str:
    """The path under which a proxy shows the board, from X-Forwarded-Prefix; empty without one."""
    given = request.headers.get("x-forwarded-prefix", "").rstrip("/")
    return given if re.fullmatch(r"(/[A-Za-z0-9._~-]+)*", given) else ""


def tagged(request: Request, body: bytes, media_type: str, *, age: int = 0) -> Response:
    """``body`` with its ETag; 304 without it where the browser has it already."""
    tag = f'"{hashlib.blake2b(body, digest_size=12).hexdigest()}"'
    headers = {
        "etag": tag,
        "cache-control": f"private, max-age={age}" if age else "no-cache",
        "vary": "accept-encoding",
    }
    if tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(body, media_type=media_type, headers=headers)


@dataclass(frozen=True)
class _Script:
    plain: bytes
    zipped: bytes


@cache
def _echarts() -> dict[str, _Script]:
    """The ECharts bundle that NiceGUI's wheel carries: an index.js and what it imports, by file name.

    :raises WattStreamError: where the wheel is not installed, or carries it elsewhere.
    """
    try:
        listed = files("nicegui") or []
    except PackageNotFoundError:
        listed = []
    found = [file for file in listed if "elements/echart/dist/" in file.as_posix() and file.suffix == ".js"]
    if not any(file.name == "index.js" for file in found):
        raise WattStreamError(
            "ECharts was not found in the package nicegui: install the extra 'board' (make env), in the locked version."
        )
    scripts: dict[str, _Script] = {}
    for file in found:
        plain = Path(str(file.locate())).read_bytes()
        scripts[file.name] = _Script(plain, gzip.compress(plain, 6))
    return scripts


def echarts(request: Request) -> Response:
    """A script of ECharts, compressed once; its name has a hash in it, all but the small index."""
    name = request.path_params["file"]
    script = _echarts().get(name)
    if script is None:
        return PlainTextResponse("There is no such file.", 404)
    age = 300 if name == "index.js" else A_YEAR
    headers = {"cache-control": f"public, max-age={age}", "vary": "accept-encoding"}
    if "gzip" in request.headers.get("accept-encoding", ""):
        return Response(script.zipped, media_type="text/javascript", headers=headers | {"content-encoding": "gzip"})
    return Response(script.plain, media_type="text/javascript", headers=headers)
