"""Who may do what in the embedded ClickHouse: the engine's roles, and what is refused before it sees a statement.

The users are writer, planner and viewer, and, where it was asked for, admin, who brings databases and tables of their
own, and only reads those of WattStream.

Nothing in the process has the right to read a file or a network address, not even the server itself. What chdb
grants without asking (the function file(), INTO OUTFILE, SET ROLE) is refused here or replaced in the engine.
"""

import hmac
import json
from collections.abc import Iterable
from pathlib import Path
from xml.sax.saxutils import escape

from pipelines.local.clickhouse_errors import ClickHouseError
from pipelines.local.clickhouse_outside import REFUSED_SETTINGS, outside
from pipelines.local.clickhouse_statement import Statement, tokens
from schemas.errors import WattStreamError
from schemas.settings import ADMIN, DATABASE, USERS

SERVER_ROLE = "server"

_ENGINES = [
    "MergeTree",
    "ReplacingMergeTree",
    "SummingMergeTree",
    "AggregatingMergeTree",
    "CollapsingMergeTree",
    "VersionedCollapsingMergeTree",
    "Memory",
    "Null",
    "View",
    "MaterializedView",
    "Buffer",
    "Log",
    "TinyLog",
    "StripeLog",
    "Set",
    "Join",
    "Merge",
]
_READ_SYSTEM = ["SHOW ON *.*", "CREATE TEMPORARY TABLE ON *.*"]

# Databases whose name begins with ours are the writer's too: side databases for tests and rehearsals.
GRANTS: dict[str, list[str]] = {
    "writer": [
        *_READ_SYSTEM,
        f"SELECT, INSERT, ALTER, CREATE, DROP, UNDROP TABLE, TRUNCATE, OPTIMIZE, CHECK, dictGet ON {DATABASE}*.*",
        "KILL QUERY ON *.*",
        "SYSTEM ON *.*",
        *(f"TABLE ENGINE ON {engine}" for engine in _ENGINES),
    ],
    "planner": [
        *_READ_SYSTEM,
        f"SELECT, INSERT, ALTER, CREATE TABLE, DROP TABLE, TRUNCATE, OPTIMIZE, dictGet ON {DATABASE}.*",
        *(f"TABLE ENGINE ON {engine}" for engine in _ENGINES),
    ],
    "viewer": [*_READ_SYSTEM, f"SELECT, dictGet ON {DATABASE}.*"],
    ADMIN: [
        *_READ_SYSTEM,
        "SHOW ACCESS, SELECT, INSERT, ALTER, CREATE DATABASE, CREATE TABLE, CREATE VIEW, CREATE DICTIONARY, "
        "DROP, UNDROP TABLE, TRUNCATE, OPTIMIZE, CHECK, dictGet ON *.*",
        "KILL QUERY ON *.*",
        "SYSTEM ON *.*",
        *(f"TABLE ENGINE ON {engine}" for engine in _ENGINES),
    ],
    SERVER_ROLE: [
        "CREATE DATABASE ON *.*",
        "KILL QUERY ON *.*",
        "SHOW ON *.*",
        "SYSTEM ON *.*",
    ],
}
"""What each role may do; the role has its user's name."""

# Rows that no worker wrote would be doubles to the audit.
_REVOKED = {ADMIN: [f"INSERT, ALTER, CREATE, DROP, UNDROP TABLE, TRUNCATE, OPTIMIZE ON {DATABASE}*.*"]}

DEFAULTS: dict[str, dict[str, bytes]] = {
    # One thread for a dashboard's query: a long one on all cores makes the small ones wait (p50 34 ms instead of 3).
    "viewer": {"readonly": b"2", "max_threads": b"1", "max_execution_time": b"60", "max_memory_usage": b"2000000000"},
    "planner": {},
    "writer": {},
    ADMIN: {},
}
"""Settings a user's queries start with."""

HOME = dict.fromkeys(USERS, DATABASE) | {ADMIN: "default"}
"""The database of a query that names none."""

_STATEMENTS = frozenset(
    b"SELECT WITH FROM ( INSERT CREATE ALTER DROP TRUNCATE RENAME EXCHANGE OPTIMIZE EXPLAIN DESCRIBE DESC SHOW EXISTS "
    b"CHECK KILL SET USE SYSTEM DELETE UPDATE REPLACE UNDROP DETACH VALUES".split()
)
# The engine lets every user kill the queries of the same user, and here all are one to it.
_STEERING = frozenset([b"KILL", b"SYSTEM"])
_STEERERS = frozenset(["writer", ADMIN])
_SYSTEM = frozenset([b"FLUSH", b"SYNC", b"WAIT", b"START", b"STOP", b"DROP", b"REFRESH"])
_RELOADED = frozenset([b"DICTIONARY", b"DICTIONARIES"])

# What fills a dictionary from this engine's tables, and what in its definition leads elsewhere.
_TABLES_AND_NONE = frozenset([b"CLICKHOUSE", b"NULL"])
_DICTIONARY_OUTSIDE = frozenset([b"HOST", b"SSD_CACHE", b"COMPLEX_KEY_SSD_CACHE"])

_VIEWER_SYSTEM_TABLES = frozenset(
    b"ASYNCHRONOUS_METRICS BUILD_OPTIONS COLLATIONS COLUMNS CONTRIBUTORS DATABASES DATA_TYPE_FAMILIES DICTIONARIES "
    b"ENABLED_ROLES CURRENT_ROLES EVENTS FORMATS FUNCTIONS KEYWORDS LICENSES METRICS NUMBERS NUMBERS_MT ONE PARTS "
    b"PARTS_COLUMNS ROLE_GRANTS SCHEMA_INFERENCE_CACHE SETTINGS SERVER_SETTINGS TABLES TABLE_ENGINES TABLE_FUNCTIONS "
    b"TIME_ZONES ZEROS GRANTS MACROS CLUSTERS".split()
)


def load_passwords(file: Path, admin: bool = False) -> dict[str, str]:
    """The users' passwords from ``file``, JSON of user to password; the user admin is one only with ``admin``.

    :raises WattStreamError: where it is missing, open to others, or damaged.
    """
    users = (*USERS, ADMIN) if admin else USERS
    if not file.is_file():
        raise WattStreamError(
            f"The file of passwords {file} is missing. wattstream up makes it (mode 0600); "
            f"else give --secrets a JSON file with the keys {', '.join(users)}."
        )
    if file.stat().st_mode & 0o077:
        raise WattStreamError(f"{file} holds passwords and others may read it. Make it yours alone: chmod 600 {file}")
    try:
        passwords = json.loads(file.read_text())
        return {user: str(passwords[user]) for user in users}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WattStreamError(
            f"{file} is not JSON of user to password for {', '.join(users)} ({error!r}). "
            "Restore it, or delete it to make new passwords at the next start."
        ) from error


def authenticate(passwords: dict[str, str], user: str, password: str) -> None:
    """Let the user in, or :raises ClickHouseError: code 516, in the same words for a wrong user and password."""
    expected = passwords.get(user)
    known = hmac.compare_digest((expected or "\0" * 32).encode(), password.encode())
    if expected is None or not known:
        raise ClickHouseError(
            516,
            f"{user}: Authentication failed: password is incorrect, or there is no user with such name.",
            "AUTHENTICATION_FAILED",
        )


def refuse(user: str, statement: Statement, database: str) -> None:
    """Refuse what no role can forbid, or :raises ClickHouseError: code 497 ACCESS_DENIED and the like."""
    keyword = statement.keyword
    if not keyword:
        raise ClickHouseError(62, "Empty query", "SYNTAX_ERROR")
    if keyword not in _STATEMENTS:
        raise _denied(f"statements that begin with {_shown(keyword)} are not taken here")
    if keyword in _STEERING and user not in _STEERERS:
        raise _denied(f"{_shown(keyword)} is for the users {' and '.join(sorted(_STEERERS))} only")
    second = statement.words[1] if len(statement.words) > 1 else b""
    if keyword == b"SET" and (len(statement.words) < 3 or statement.words[2] not in {b"=", b","}):
        raise _denied(f"SET {_shown(second)}: the role of a user is fixed, only settings can be set")
    reloads = second == b"RELOAD" and not _RELOADED.isdisjoint(statement.words[2:])
    if keyword == b"SYSTEM" and second not in _SYSTEM and not reloads:
        raise _denied(f"SYSTEM {_shown(second)} is not taken here")
    if statement.input is not None and user != "writer":
        raise _denied("input() is for the user writer only")
    refuse_outside(statement.sql)
    _refuse_hidden(statement.sql)
    if keyword in {b"CREATE", b"REPLACE"}:
        _refuse_outer_dictionary(statement.sql)
    if user == "viewer":
        if database not in {"", DATABASE} or (keyword == b"USE" and second != DATABASE.upper().encode()):
            raise _denied(f"the user viewer works in the database {DATABASE}; name others' tables with their database")
        if keyword == b"SHOW" and second in {b"PROCESSLIST", b"FULL"} and b"PROCESSLIST" in statement.words:
            raise _denied("SHOW PROCESSLIST is not for the user viewer")
        _refuse_other_system_tables(statement.sql)


def refuse_outside(sql: bytes) -> None:
    """Refuse reading or writing files, programs and addresses anywhere in the text."""
    if found := outside(sql):
        raise _denied(f"{_shown(found)} reaches outside of the database")


def _refuse_hidden(sql: bytes) -> None:
    """Refuse what hides a second statement, or a name, from all who look at the text."""
    before = b""
    for token in tokens(sql):
        if before == b"PARALLEL" and token.upper == b"WITH":
            raise _denied("PARALLEL WITH makes one statement of several")
        if token.text[:1] in {b"`", b'"'} and b"\\x" in token.text:
            raise _denied("a name is written with \\x")
        before = token.upper


def _refuse_outer_dictionary(sql: bytes) -> None:
    """Refuse a dictionary that is filled from, or kept, outside of the tables: the engine's grants don't cover it."""
    words = [token.text.strip(b'`"').upper() for token in tokens(sql)]
    if b"DICTIONARY" not in words[:4]:
        return
    sources = {words[at + 2] for at in range(len(words) - 2) if words[at : at + 2] == [b"SOURCE", b"("]}
    outside = (sources - _TABLES_AND_NONE) | (_DICTIONARY_OUTSIDE & set(words))
    if outside:
        raise _denied(f"{_shown(sorted(outside)[0])} reaches outside of the database")


def refuse_class(statement: Statement, facts: dict[str, object]) -> None:
    """Refuse by the engine's own reading of the statement: several at once, or one that steers the engine."""
    if isinstance(count := facts["statement_count"], int) and count > 1:
        raise ClickHouseError(62, "Syntax error (Multi-statements are not allowed)", "SYNTAX_ERROR")
    label = str(facts["query_class"]).rsplit(".", 1)[-1].split(":")[0]
    if label.startswith("CONTROL") and (statement.reads or statement.insert):
        raise _denied("it reads or writes outside of the database")


def refuse_setting(user: str, name: str, value: bytes) -> None:
    """Refuse settings that name files and addresses, whoever sends them, and writing for who only reads."""
    if name in REFUSED_SETTINGS:
        raise _denied(f"the setting {name} reaches outside of the database")
    if name == "readonly" and "readonly" in DEFAULTS[user] and value not in {b"1", b"2"}:
        raise ClickHouseError(164, f"Cannot modify 'readonly' as user {user}, who only reads", "READONLY")


def _refuse_other_system_tables(sql: bytes) -> None:
    before: list[bytes] = []
    for token in tokens(sql):
        name = token.text.strip(b"`\"'").upper()
        if before[-2:] == [b"SYSTEM", b"."] and name not in _VIEWER_SYSTEM_TABLES:
            raise _denied(f"system.{_shown(name.lower())} is not for the user viewer")
        if name == b"IDENTIFIER" and before[-1:] == [b":"]:
            raise _denied("a name given as a parameter is not for the user viewer")
        if token.upper == b"(" and before and before[-1] in {b"MERGE", b"LOOP", b"MERGETREEINDEX"}:
            raise _denied(f"{_shown(before[-1].lower())}() is not for the user viewer")
        before = [*before[-1:], name]


def users_xml(users: Iterable[str] = USERS) -> str:
    """The engine's users file: one user with all roles, of which each connection keeps one by SET ROLE."""
    names = [*users, SERVER_ROLE]
    roles = "".join(f"<{role}><grants>{_queries(_rights(role))}</grants></{role}>\n" for role in names)
    return f"""<clickhouse>
<profiles><default>
<log_queries>0</log_queries>
<max_partitions_per_insert_block>0</max_partitions_per_insert_block>
<async_insert>0</async_insert>
</default></profiles>
<users><default>
<password></password><networks><ip>::/0</ip></networks><profile>default</profile><quota>default</quota>
<grants>{_queries([f"GRANT {', '.join(names)}"])}</grants>
</default></users>
<roles>{roles}</roles>
<quotas><default/></quotas>
</clickhouse>
"""


def _rights(role: str) -> list[str]:
    return [*(f"GRANT {grant}" for grant in GRANTS[role]), *(f"REVOKE {right}" for right in _REVOKED.get(role, []))]


def _queries(grants: Iterable[str]) -> str:
    return "".join(f"<query>{escape(grant)}</query>" for grant in grants)


def _shown(name: bytes) -> str:
    return name[:60].decode(errors="replace")


def _denied(reason: str) -> ClickHouseError:
    return ClickHouseError(497, f"Not allowed: {reason}.", "ACCESS_DENIED")
