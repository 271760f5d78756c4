"""Runs the variants one after the other, each load's on a ground of its own, and tells what it finds as it comes."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from pipelines.bench.ground import Ground, ground
from pipelines.bench.insert_http import http_over_in_process
from pipelines.bench.load import LOADS
from pipelines.bench.measure import SOAK_LOAD, at_loads, full_speed, soak
from pipelines.bench.processes import python_of
from pipelines.bench.report import Report
from pipelines.bench.sending import Sender
from pipelines.bench.variants import BY_NAME, VARIANTS, Variant
from schemas.errors import UsageError, WattStreamError
from schemas.progress import Progress

RUNS, FILLING = "runs", "events into Kafka"


def chosen(only: Sequence[str], factors: bool) -> list[Variant]:
    """The variants named; without names those of the main table, and with ``factors`` those too.

    :raises UsageError: where one is not there.
    """
    if unknown := [name for name in only if name not in BY_NAME]:
        raise UsageError(f"There is no variant {', '.join(unknown)}; there are {', '.join(BY_NAME)}.")
    if only:
        return [variant for variant in VARIANTS if variant.name in only]
    return [variant for variant in VARIANTS if variant.group == "main" or (factors and variant.group == "factor")]


class Bench:
    """One run of the bench; its ``report`` holds what was found by the time it is cut short."""

    def __init__(
        self,
        events: int,
        repeat: int,
        *,
        only: Sequence[str] = (),
        factors: bool = False,
        soak_seconds: float = 0,
        say: Callable[[str], None],
        progress: Progress,
    ) -> None:
        self.report = Report(events, repeat)
        self._variants = chosen(only, factors)
        self._named = bool(only)
        self._factors = factors
        self._soak_seconds = soak_seconds
        self._say = say
        self._progress = progress
        self._done = 0

    def run(self) -> None:
        """Measure everything. What fails is told, and the others go on."""
        self._look_for_environments()
        self._paced = {one.name for one in self._variants if one.paced or (self._named and one.group != "factor")}
        self._total = len(self._variants) * self.report.repeat + len(self._paced)
        for name in LOADS:
            if of_it := [variant for variant in self._variants if variant.load_name == name]:
                with ground(LOADS[name]) as there:
                    self._on(there, of_it)
        if self._factors:
            with self._counted("insert over HTTP"):
                ratio = http_over_in_process()
                self.report.more["insert in process/over HTTP"] = ratio
                self._say(f"insert of 200,000 rows over HTTP: {ratio:.2f} of the speed in process")

    def _look_for_environments(self) -> None:
        for variant in list(self._variants):
            try:
                python_of(variant)
            except WattStreamError as error:
                self.report.missing[variant.name] = str(error)
                self._say(f"Left out: {error}")
                self._variants.remove(variant)

    def _on(self, there: Ground, variants: list[Variant]) -> None:
        """All that is measured of one load: shares of the log first, for those that take too long on all of it."""
        count = self.report.events * there.load.scale
        frames = there.load.frames(count)
        with Sender(there.settings, there.load) as sender:
            for share in sorted({variant.share for variant in variants}):
                while sender.sent < share * count:
                    self._progress(FILLING, sender.sent, count)
                    sender.send(next(frames))
                sender.flush()
                for turn in range(self.report.repeat):
                    for variant in (one for one in variants if one.share == share):
                        self._full_speed(variant, there, sender.totals, turn)
        for variant in variants:
            if variant.name in self._paced and variant.name in self.report.counted:
                (self._soak if self._soak_seconds else self._at_loads)(variant, there)

    def _full_speed(self, variant: Variant, there: Ground, expected: tuple[int, ...], turn: int) -> None:
        if variant.name in self.report.failed:
            return
        runs = self.report.runs.setdefault(variant.name, [])
        with self._counted(variant.name):
            found = full_speed(variant, there, expected, self._progress)
            runs.append(found)
            cpu = " + ".join(f"{seconds:.2f} {part}" for part, seconds in found.cpu_s_per_million.items())
            self._say(
                f"{variant.name} {turn + 1}/{self.report.repeat}: {found.events_per_s:,.0f} events/s, "
                f"CPU s a million: {cpu}, {found.peak_mb:,.0f} MB"
            )

    def _at_loads(self, variant: Variant, there: Ground) -> None:
        with self._counted(variant.name):
            maximum = self.report.median(variant.name).events_per_s
            self.report.at_loads[variant.name] = at_loads(variant, there, maximum, self._progress)
            for load, found in self.report.at_loads[variant.name].items():
                self._say(
                    f"{variant.name} at {load} %: {found.events_per_s:,.0f} events/s, fresh after p50 "
                    f"{found.freshness_p50_s:.2f} s, p99 {found.freshness_p99_s:.2f} s, "
                    f"CPU s a million: {found.cpu_s:.2f}, {found.peak_mb:,.0f} MB"
                )

    def _soak(self, variant: Variant, there: Ground) -> None:
        with self._counted(variant.name):
            maximum = self.report.median(variant.name).events_per_s
            found = soak(variant, there, maximum, self._soak_seconds, self._progress)
            self.report.soaks[variant.name] = found
            self._say(
                f"{variant.name} at {SOAK_LOAD} % for {found.seconds / 60:g} min: {found.events_per_s:,.0f} events/s, "
                f"fresh after p50 {found.freshness_p50_s:.2f} s, p99 {found.freshness_p99_s:.2f} s, at most "
                f"{found.peak_mb:,.0f} MB, {found.memory_slope:+.2%} in 10 min"
            )

    @contextmanager
    def _counted(self, name: str) -> Iterator[None]:
        """A run; its failure is told and keeps no other from running."""
        self._progress(RUNS, self._done, self._total)
        try:
            yield
        except (WattStreamError, ValueError) as error:
            self.report.failed[name] = str(error)
            self._say(f"{name} does not count: {error}")
        self._done += 1
        self._progress(RUNS, self._done, self._total)
