"""Dagster's pages, for programs of this machine and for the pages themselves: Dagster asks nobody who they are.

Its GraphQL takes a mutation from any page that a browser shows, by GET too, and would stop schedules for it.
"""

from typing import Any

from dagster_webserver import cli
from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from schemas.loopback import is_named, is_of_another_site


class LoopbackOnly:
    """Lets through what asks for a name of loopback and is no page of another site; a link from one may lead here."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or open one socket."""
        if scope["type"] in {"http", "websocket"} and (words := _refusal(scope)):
            if scope["type"] == "http":
                await PlainTextResponse(words, 403)(scope, receive, send)
            else:
                await send({"type": "websocket.close", "code": 1008, "reason": words})
            return
        await self._app(scope, receive, send)


def _refusal(scope: Scope) -> str | None:
    headers = Headers(scope=scope)
    if not is_named(headers.get("host", "")):
        return "Dagster answers to localhost only. A proxy must send it Host: localhost."
    if is_of_another_site(scope.get("method", "GET"), lambda name: headers.get(name, ""), links=True):
        return "Dagster answers its own pages only. A page of another site may link to it, and no more."
    return None


def main() -> None:
    """dagster-webserver, with its own options."""
    make: Any = cli.create_app_from_workspace_process_context
    cli.create_app_from_workspace_process_context = lambda *given, **more: LoopbackOnly(make(*given, **more))
    cli.main()


if __name__ == "__main__":
    main()
