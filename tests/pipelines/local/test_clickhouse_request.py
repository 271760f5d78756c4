import pytest

from pipelines.local.clickhouse_errors import ClickHouseError
from pipelines.local.clickhouse_request import Request, read_job

COLUMNS = b", ".join(b"column_%05d" % number for number in range(6000))
SQL = b"INSERT INTO t (" + COLUMNS + b") FORMAT Native\n"


@pytest.mark.parametrize("back", [0, 1, 3, 6, 7, 10, 20_000])
def test_statement_is_found_wherever_the_network_cuts_the_body(back: int):
    body = SQL + b"\x01\x02\x03"
    place = len(SQL) - back
    for chunks in ([body], [body[:place], body[place:]]):
        job = read_job(Request("POST", "/", {}, {}), "writer", chunks)
        assert (job.format, b"".join(job.body)) == ("Native", b"\x01\x02\x03")
        assert job.statement.sql == SQL.removesuffix(b"FORMAT Native\n")


def test_statement_without_end_is_refused():
    with pytest.raises(ClickHouseError, match="a statement longer than"):
        read_job(Request("POST", "/", {}, {}), "writer", [b"SELECT 1 "] + [b" " * 1_000_000] * 20)


def test_names_of_a_form_that_are_no_text_are_taken_as_they_are():
    part = b'--b\r\nContent-Disposition: form-data; name="\xff"\r\n\r\n1\r\n--b--\r\n'
    request = Request("POST", "/", {b"content-type": b"multipart/form-data; boundary=b"}, {})
    assert request.take_form([part])
    assert request.params == {"\ufffd": b"1"}
