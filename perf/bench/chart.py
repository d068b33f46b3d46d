"""The chart of a whole run as SVG: how many times better than Envoy, one line per figure, on a logarithmic scale."""

from __future__ import annotations

import math
from collections.abc import Sequence
from xml.sax.saxutils import escape

from perf.bench.cases import Mode, Name
from perf.bench.results import Row
from perf.bench.table import number

SHOWN = {  # per mode: which metrics, and how a reader knows them
    Mode.ROUND_TRIPS: {"p50": "p50", "p99": "p99", "rate": "rate"},
    Mode.CONNECTIONS: {"rate": "rate", "p99": "p99"},
    Mode.UP: {"rate": "throughput"},
    Mode.DOWN: {"rate": "throughput"},
    Mode.HTTP1: {"rate": "rate", "per-core": "per core"},
    Mode.HTTP1_HALF: {"p99": "p99"},
    Mode.HTTP2: {"rate": "rate", "per-core": "per core"},
    Mode.GRPC: {"rate": "rate", "per-core": "per core"},
    Mode.IDLE: {
        "client": "client side",
        "server": "server side",
        "base-worker": "before them",
    },
}
LEFT, RIGHT, WIDTH, TOP, STEP = 350, 210, 960, 96, 26
LEAST, MOST = 0.25, 4.0  # ends of the scale: what is beyond is drawn there, and its value is beside
TICKS = (0.25, 0.5, 1, 2, 4)
STYLE = """
  text { font: 13px system-ui, sans-serif; fill: #24292f } .small { font-size: 11px; fill: #57606a }
  .title { font-size: 17px; font-weight: 600 } .grid { stroke: #d0d7de } .envoy { stroke: #57606a; stroke-width: 2 }
  .ahead { fill: #1f883d } .behind { fill: #cf222e } .haproxy { fill: #fff; stroke: #8250df; stroke-width: 2 }
  .paper { fill: #fff }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 } .small { fill: #9198a1 } .grid { stroke: #3d444d } .envoy { stroke: #9198a1 }
    .paper { fill: #0d1117 } .haproxy { fill: #0d1117; stroke: #ab7df8 }
    .ahead { fill: #3fb950 } .behind { fill: #f85149 }
  }
"""


def draw(table: Sequence[Row], conditions: str) -> str:
    """`conditions`: one line that says where and when. Rows without Ambit or Envoy are left out."""
    rows = [row for row in table if _label(row) and row.ratio(Name.AMBIT, Name.ENVOY)]
    height = TOP + STEP * len(rows) + 50
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">',
        f"<title>Ambit and HAProxy against Envoy</title><style>{STYLE}</style>",
        f'<rect class="paper" width="{WIDTH}" height="{height}"/>',
        '<text class="title" x="20" y="30">How many times better than Envoy</text>',
        f'<text class="small" x="20" y="50">{escape(conditions)}</text>',
        *_legend(),
        *_scale(height),
        *(part for index, row in enumerate(rows) for part in _line(row, TOP + STEP * index + STEP // 2)),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _label(row: Row) -> str:
    name = SHOWN.get(row.case.mode, {}).get(row.metric.name, "")
    return f"{row.case.title}: {name}" if name else ""


def _better(row: Row, system: Name) -> float | None:
    ratio = row.ratio(system, Name.ENVOY)
    if ratio is None or ratio <= 0:
        return None
    return ratio if row.metric.more_is_better else 1 / ratio


def _x(times: float) -> float:
    share = math.log(min(max(times, LEAST), MOST) / LEAST) / math.log(MOST / LEAST)
    return round(LEFT + share * (WIDTH - LEFT - RIGHT), 1)


def _legend() -> list[str]:
    return [
        '<rect class="ahead" x="330" y="62" width="18" height="10"/>',
        '<text class="small" x="354" y="71">Ambit, ahead</text>',
        '<rect class="behind" x="440" y="62" width="18" height="10"/>',
        '<text class="small" x="464" y="71">behind</text>',
        '<circle class="haproxy" cx="530" cy="67" r="4"/><text class="small" x="541" y="71">HAProxy</text>',
        f'<text class="small" x="{WIDTH - RIGHT + 16}" y="{TOP - 8}">Ambit, Envoy</text>',
    ]


def _scale(height: int) -> list[str]:
    bottom = height - 40
    lines = []
    for tick in TICKS:
        style = "envoy" if tick == 1 else "grid"
        lines.append(f'<line class="{style}" x1="{_x(tick)}" x2="{_x(tick)}" y1="{TOP - 4}" y2="{bottom}"/>')
        name = "Envoy" if tick == 1 else f"{tick:g}x"
        lines.append(f'<text class="small" x="{_x(tick)}" y="{bottom + 16}" text-anchor="middle">{name}</text>')
    return lines


def _line(row: Row, y: int) -> list[str]:
    ambit, haproxy = _better(row, Name.AMBIT), _better(row, Name.HAPROXY)
    label = f'<text x="{LEFT - 12}" y="{y + 4}" text-anchor="end">{escape(_label(row))}</text>'
    parts = [label]
    if ambit is not None:
        begin, end = sorted((_x(1), _x(ambit)))
        style = "ahead" if ambit >= 1 else "behind"
        parts.append(f'<rect class="{style}" x="{begin}" y="{y - 6}" width="{max(end - begin, 2):.1f}" height="12"/>')
    if haproxy is not None:
        parts.append(f'<circle class="haproxy" cx="{_x(haproxy)}" cy="{y}" r="4"/>')
    values = f"{number(row.results.get(Name.AMBIT))}, {number(row.results.get(Name.ENVOY))} {row.metric.unit}"
    parts.append(f'<text class="small" x="{WIDTH - RIGHT + 16}" y="{y + 4}">{escape(values)}</text>')
    return parts
