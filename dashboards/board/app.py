"""The board: ``python -m dashboards.board.app`` draws the dashboards at http://127.0.0.1:<port>/ from ClickHouse."""

import io
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import uvicorn
from jinja2 import Environment, FileSystemLoader
from pyarrow import csv
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from dashboards.board.answers import Answers, Choices, UnknownName, writable
from dashboards.board.data import QueryError, Source, clickhouse
from dashboards.board.draw import draw
from dashboards.board.web import HouseRules, echarts, prefix, tagged
from dashboards.build import all_dashboards
from schemas.errors import UsageError, WattStreamError
from schemas.settings import Settings, load

HERE = Path(__file__).parent
_pages = Environment(loader=FileSystemLoader(HERE / "templates"), autoescape=True, trim_blocks=True, lstrip_blocks=True)


def create_app(source: Source, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> Starlette:
    """The application; ``source`` answers its queries, ``clock`` says what ``now`` is."""
    answers = Answers(all_dashboards(), source, clock)

    def page(template: str, request: Request, **more: Any) -> Response:
        documents = [
            {key: document[key] for key in ("uid", "title", "description")} for document in answers.documents.values()
        ]
        html = _pages.get_template(template).render(prefix=prefix(request), dashboards=documents, **more)
        return HTMLResponse(html, headers={"cache-control": "no-cache"})

    async def index(request: Request) -> Response:
        return page("index.html", request)

    async def dashboard(request: Request) -> Response:
        return page("dashboard.html", request, dashboard=answers.document(request.path_params["uid"]))

    async def model(request: Request) -> Response:
        return tagged(
            request, orjson.dumps(_for_page(answers.document(request.path_params["uid"]))), "application/json"
        )

    async def options(request: Request) -> Response:
        uid = request.path_params["uid"]
        found = await answers.options(uid, _choices(request, answers.document(uid)))
        return tagged(request, orjson.dumps(found), "application/json")

    async def panel(request: Request) -> Response:
        uid, number = request.path_params["uid"], request.path_params["number"]
        drawn = await answers.drawn(uid, number, _choices(request, answers.document(uid)))
        return tagged(request, orjson.dumps(drawn), "application/json")

    async def rows(request: Request) -> Response:
        uid, number = request.path_params["uid"], request.path_params["number"]
        tables = await answers.tables(uid, number, _choices(request, answers.document(uid)))
        plain = answers.panel(uid, number) | {"type": "table", "fieldConfig": {"defaults": {}, "overrides": []}}
        return tagged(request, orjson.dumps(draw(plain, tables)), "application/json")

    async def download(request: Request) -> Response:
        uid, number = request.path_params["uid"], request.path_params["number"]
        tables = await answers.tables(uid, number, _choices(request, answers.document(uid)))
        buffer = io.BytesIO()
        csv.write_csv(writable(tables[0]), buffer)
        name = f"{uid}-{number}.csv"
        headers = {"content-disposition": f'attachment; filename="{name}"', "cache-control": "no-store"}
        return Response(buffer.getvalue(), media_type="text/csv; charset=utf-8", headers=headers)

    async def health(_: Request) -> Response:
        body = {"status": "ok", "dashboards": len(answers.documents), "queries": source.ran, "answers": source.asked}
        return Response(orjson.dumps(body), media_type="application/json", headers={"cache-control": "no-store"})

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        source.close()

    api = "/api/dashboards/{uid}"
    return Starlette(
        routes=[
            Route("/", index),
            Route("/health", health),
            Route("/d/{uid}", dashboard),
            Route("/d/{uid}/{slug}", dashboard),
            Route(api, model),
            Route(api + "/variables", options),
            Route(api + "/panels/{number:int}", panel),
            Route(api + "/panels/{number:int}/rows", rows),
            Route(api + "/panels/{number:int}/csv", download),
            Route("/echarts/{file}", echarts),
            Mount("/static", StaticFiles(directory=HERE / "static")),
        ],
        middleware=[Middleware(HouseRules), Middleware(GZipMiddleware, minimum_size=1024, compresslevel=5)],
        exception_handlers={
            UnknownName: _failed(404),
            UsageError: _failed(400),
            QueryError: _failed(502),
            WattStreamError: _failed(502),
        },
        lifespan=lifespan,
    )


def _failed(status: int) -> Callable[[Request, Exception], Response]:
    """An error in words, for the panel that asked."""

    def answer(_: Request, error: Exception) -> Response:
        body = orjson.dumps({"error": str(error)})
        return Response(body, status, media_type="application/json", headers={"cache-control": "no-store"})

    return answer


def _choices(request: Request, document: dict[str, Any]) -> Choices:
    query = request.query_params
    variables: dict[str, tuple[str, ...]] = {}
    for name in query:
        if name.startswith("var-"):
            chosen = tuple(query.getlist(name))
            variables[name.removeprefix("var-")] = ("$__all",) if "All" in chosen or "" in chosen else chosen
    return Choices(
        start=query.get("from") or document["time"]["from"],
        stop=query.get("to") or document["time"]["to"],
        refresh=query.get("refresh") or document.get("refresh") or "",
        variables=variables,
    )


def _for_page(document: dict[str, Any]) -> dict[str, Any]:
    """What the page lays out: each panel's place, kind and words; what it draws comes panel by panel."""
    keys = ("id", "type", "title", "description", "gridPos", "options")
    return {
        "uid": document["uid"],
        "title": document["title"],
        "time": document["time"],
        "refresh": document.get("refresh", ""),
        "refreshIntervals": document.get("timepicker", {}).get("refresh_intervals", []),
        "variables": [variable["name"] for variable in document.get("templating", {}).get("list", [])],
        "panels": [{key: panel[key] for key in keys if key in panel} for panel in document["panels"]],
    }


def serve(settings: Settings) -> None:
    """Serve the board until SIGTERM or Ctrl-C."""
    app = create_app(Source(clickhouse(settings)))
    uvicorn.run(app, host="127.0.0.1", port=settings.port("board"), log_level="warning", server_header=False)


def main() -> int:
    """Serve with the settings of the environment (WATTSTREAM_*)."""
    try:
        serve(load())
    except WattStreamError as error:
        print(error, file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
