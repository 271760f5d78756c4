"""Dagster's pages answer programs of this machine and themselves, and no page of another site."""

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocket, WebSocketDisconnect

from dags.page import LoopbackOnly

OTHERS = [
    {"host": "evil.example"},
    {"origin": "https://evil.example"},
    {"origin": "http://127.0.0.1:1"},
    {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"},
    {"sec-fetch-site": "same-site", "sec-fetch-mode": "websocket"},
]


@pytest.fixture
def client() -> TestClient:
    async def answer(request: Request) -> PlainTextResponse:
        return PlainTextResponse("yes")

    async def open_socket(socket: WebSocket) -> None:
        await socket.accept()
        await socket.send_text("yes")

    routes = [Route("/graphql", answer, methods=["GET", "POST"]), WebSocketRoute("/graphql", open_socket)]
    return TestClient(LoopbackOnly(Starlette(routes=routes)), base_url="http://127.0.0.1:18804")


@pytest.mark.parametrize("headers", OTHERS, ids=str)
def test_a_page_of_another_site_can_ask_nothing(client: TestClient, headers: dict[str, str]) -> None:
    assert client.post("/graphql", headers=headers).status_code == 403
    assert client.get("/graphql", params={"query": "mutation"}, headers=headers).status_code == 403
    with pytest.raises(WebSocketDisconnect), client.websocket_connect("/graphql", headers=headers):
        pass


@pytest.mark.parametrize(
    "headers",
    [{}, {"host": "localhost:18804"}, {"origin": "http://127.0.0.1:18804"}, {"sec-fetch-site": "same-origin"}],
    ids=str,
)
def test_programs_and_its_own_pages_are_answered(client: TestClient, headers: dict[str, str]) -> None:
    assert client.post("/graphql", headers={"host": "127.0.0.1:18804"} | headers).text == "yes"
    with client.websocket_connect("/graphql", headers={"host": "127.0.0.1:18804"} | headers) as socket:
        assert socket.receive_text() == "yes"


def test_a_link_may_lead_here(client: TestClient) -> None:
    leads = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
    assert client.get("/graphql", headers=leads).text == "yes"
