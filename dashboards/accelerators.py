"""Accelerators: how busy, how hot, how hungry, by vendor and model."""

from grafana_foundation_sdk.builders.dashboard import Dashboard

from dashboards import measures
from dashboards.panels import COMPLETE, Panel, Steps, board, choice, heat_map, lines, number, rows
from dashboards.sql import RECENT, RECENT_IN_STEPS, RECENT_OF_VIEW, STEPS, STEPS_OF_CHOICE, TIME, only, over_time

CHOSEN = f"{only('site')} AND {only('vendor')} AND {only('model')}"
HELD = measures.utilization_minutes(CHOSEN)
MEMORY = "sum(memory_used_bytes) / nullIf(sum(memory_limit_bytes), 0)"
WATTS_EACH = "sum(milliwatts) / 1e3 / nullIf(sum(power_samples), 0)"
CELSIUS = "sum(millicelsius) / 1e3 / nullIf(sum(temperature_samples), 0)"
HOT: Steps = [(None, "green"), (80, "yellow"), (85, "orange"), (90, "red")]


def dashboard() -> Dashboard:
    """The accelerators of all sites."""
    page = board(
        "wattstream-accelerators",
        "Accelerators",
        "Utilization, power, memory and temperature of accelerators by vendor, model and site.",
        refresh="30s",
    )
    for name, label in (("site", "Site"), ("vendor", "Vendor"), ("model", "Model")):
        page = page.with_variable(
            choice(
                name,
                label,
                f"SELECT DISTINCT toString({name}) AS {name} FROM utilization_in_steps({STEPS_OF_CHOICE}) "
                f"WHERE {name} != '' ORDER BY {name}",
                f"Each {name} that was heard in the range.",
            )
        )
    for panel in (*_headline(), *_by_model(), *_maps()):
        page = page.with_panel(panel)
    return page


def _watts(by: str) -> str:
    """Power of all devices: each sample's mean a device, times the devices that it stands for."""
    named = f"{by}, " if by else ""
    return f"""
SELECT time, {named}sum(watts) AS value
FROM (
  SELECT
    {TIME}, {named}
    {WATTS_EACH} * (sum(device_samples) / sum(samples)) AS watts
  FROM ({HELD})
  GROUP BY time, {named}site, node, device
)
WHERE isNotNull(watts)
GROUP BY time{", " + by if by else ""}"""


def _devices(labels: str, span: str) -> str:
    """How many devices each emitter stands for."""
    return (
        f"SELECT {labels}sum(device_samples) / sum(samples) AS each FROM utilization_in_steps({span}) "
        f"WHERE {CHOSEN} GROUP BY {labels}site, node, device"
    )


def _mean(expression: str, by: str) -> str:
    named = f"{by}, " if by else ""
    return over_time(
        f"SELECT {TIME}, {named}{expression} AS value FROM ({HELD}) GROUP BY time{', ' + by if by else ''}",
        by=by,
    )


def _headline() -> list[Panel]:
    return [
        number(
            "Devices heard",
            "Accelerators with a sample in the last 15 minutes; a sample that stands for several counts them all.",
            f"SELECT toInt64(round(sum(each))) AS devices FROM ({_devices('', RECENT_IN_STEPS)}) HAVING count() > 0",
            "locale",
            size=(4, 4),
        ),
        number(
            "Busy",
            "Mean utilization of the devices heard.",
            _mean(measures.UTILIZATION, ""),
            "percentunit",
            size=(4, 4),
            decimals=1,
            trend=True,
        ),
        number("Power", "Power of all devices heard.", over_time(_watts("")), "watt", size=(4, 4), trend=True),
        number(
            "Memory in use",
            "Memory in use ÷ memory there is, where both are known.",
            _mean(MEMORY, ""),
            "percentunit",
            size=(4, 4),
            decimals=1,
            trend=True,
            steps=[(None, "blue"), (0.9, "yellow"), (0.97, "orange")],
        ),
        number(
            "Hottest device",
            "Highest temperature of the last 15 minutes.",
            f"SELECT max(temperature_celsius_max) AS hottest FROM utilization_1m WHERE {RECENT} AND {CHOSEN}",
            "celsius",
            size=(4, 4),
            steps=HOT,
            decimals=1,
        ),
        number(
            "Completeness",
            "Accelerators heard ÷ expected over the last 15 minutes at the chosen sites, maintenance excused.",
            f"SELECT sum(heard) / sum(expected) AS completeness FROM completeness({RECENT_OF_VIEW}) "
            f"WHERE topic = 'utilization' AND {only('site')} HAVING sum(expected) > 0",
            "percentunit",
            size=(4, 4),
            steps=COMPLETE,
            decimals=1,
            background=True,
        ),
    ]


def _by_model() -> list[Panel]:
    return [
        lines(
            "Utilization by model",
            "Mean of the devices heard, 0 to 1.",
            _mean(measures.UTILIZATION, "model"),
            "percentunit",
            by="model",
            size=(12, 9),
            high=1,
            legend="table",
            calcs=("lastNotNull", "mean"),
        ),
        lines(
            "Power by vendor",
            "Power of all devices heard.",
            over_time(_watts("vendor"), by="vendor"),
            "watt",
            by="vendor",
            stack=True,
            size=(12, 9),
            legend="table",
            calcs=("lastNotNull", "max"),
        ),
        lines(
            "Power of a device",
            "Mean power of one device by model.",
            _mean(WATTS_EACH, "model"),
            "watt",
            by="model",
            size=(8, 9),
        ),
        lines(
            "Memory in use by model",
            "Memory in use ÷ memory there is by model, where both are known.",
            _mean(MEMORY, "model"),
            "percentunit",
            by="model",
            size=(8, 9),
            high=1,
        ),
        lines(
            "Temperature",
            "Mean temperature of the devices by model.",
            _mean(CELSIUS, "model"),
            "celsius",
            by="model",
            size=(8, 9),
            low=None,
            steps=[(None, "green"), (90, "red")],
        ),
        rows(
            "Models",
            "What was heard of each model in the range, beside what is installed and its thermal design power.",
            f"""
SELECT
  vendor, model, heard.devices AS devices, installed.accelerators AS installed, busy, memory, watts,
  tdp.tdp_watts AS tdp, watts / tdp.tdp_watts AS of_tdp, hottest
FROM (
  SELECT
    any(vendor) AS vendor, model, {measures.UTILIZATION} AS busy, {MEMORY} AS memory, {WATTS_EACH} AS watts,
    max(temperature_celsius_max) AS hottest
  FROM utilization_in_steps({STEPS})
  WHERE {CHOSEN}
  GROUP BY model
) AS measured
INNER JOIN (
  SELECT model, toInt64(round(sum(each))) AS devices
  FROM ({_devices("model, ", STEPS)})
  GROUP BY model
) AS heard USING (model)
LEFT JOIN (
  SELECT model, toNullable(sum(accelerators)) AS accelerators FROM fleet WHERE {only("site")} GROUP BY model
) AS installed USING (model)
LEFT JOIN (SELECT model, tdp_watts FROM accelerator_models) AS tdp USING (model)
ORDER BY devices DESC, model""",
            [
                ("devices", {"name": "heard", "unit": "locale"}),
                ("installed", {"unit": "locale"}),
                ("busy", {"unit": "percentunit", "decimals": 1, "bar": 1, "steps": [(None, "blue")]}),
                ("memory", {"unit": "percentunit", "decimals": 1}),
                ("watts", {"name": "mean power", "unit": "watt"}),
                ("tdp", {"name": "TDP", "unit": "watt"}),
                ("of_tdp", {"name": "of TDP", "unit": "percentunit", "decimals": 0}),
                ("hottest", {"unit": "celsius", "decimals": 1, "steps": HOT, "cell": "color-text"}),
            ],
            size=(24, 9),
        ),
    ]


def _maps() -> list[Panel]:
    return [
        heat_map(
            "Utilization by site",
            "Mean utilization of the devices heard at each of the 30 sites with most devices; a gap is no sample.",
            over_time(
                f"SELECT {TIME}, site, {measures.UTILIZATION} AS value FROM ({HELD}) "
                f"WHERE site IN (SELECT site FROM utilization_in_steps({STEPS}) "
                f"WHERE {CHOSEN} GROUP BY site ORDER BY uniqExact(node, device) DESC, site LIMIT 30) "
                "GROUP BY time, site",
                by="site",
            ),
            "percentunit",
            by="site",
            size=(14, 14),
            low=0,
            high=1,
        ),
        rows(
            "Hottest devices",
            "The devices with the highest temperature of the last 15 minutes.",
            f"""
SELECT
  site, node, device, any(model) AS model, max(temperature_celsius_max) AS temperature,
  {measures.UTILIZATION} AS busy, {WATTS_EACH} AS watts
FROM utilization_1m
WHERE {RECENT} AND {CHOSEN}
GROUP BY site, node, device
HAVING isNotNull(temperature)
ORDER BY temperature DESC, site, node, device
LIMIT 50""",
            [
                ("temperature", {"unit": "celsius", "decimals": 1, "steps": HOT, "cell": "color-text"}),
                ("busy", {"unit": "percentunit", "decimals": 0}),
                ("watts", {"unit": "watt"}),
            ],
            size=(10, 14),
        ),
    ]
