"""A simulated day as a picture: requests, replicas wished and at work, and what requests wait. Plain SVG, no script."""

from collections.abc import Sequence

from halfbyte.deploy.simulation.day import Outcome

WIDTH, HEIGHT, LEFT, TOP, GAP = 720, 130, 64, 34, 40
COLOURS = ("#2563eb", "#d97706", "#059669")
Line = tuple[str, Sequence[float]]


def picture(outcome: Outcome, title: str) -> str:
    hours = [row[0] for row in outcome.series]
    panels: list[tuple[str, list[Line]]] = [
        ("requests a second", [("arriving", [row[1] for row in outcome.series])]),
        ("replicas", [("wished", [row[2] for row in outcome.series]), ("at work", [row[3] for row in outcome.series])]),
        ("seconds waited", [("waited", [row[4] for row in outcome.series])]),
    ]
    height = TOP + len(panels) * (HEIGHT + GAP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH + LEFT + 20} {height}" role="img" '
        f'aria-label="{title}" font-family="sans-serif" font-size="12">',
        f'<text x="{LEFT}" y="18" font-size="14" fill="currentColor">{title}</text>',
    ]
    for number, (name, lines) in enumerate(panels):
        parts += _panel(TOP + number * (HEIGHT + GAP), name, hours, lines)
    return "\n".join([*parts, "</svg>", ""])


def _panel(top: float, name: str, hours: Sequence[float], lines: Sequence[Line]) -> list[str]:
    most = max(max(values) for _, values in lines) or 1.0
    parts = [
        f'<rect x="{LEFT}" y="{top}" width="{WIDTH}" height="{HEIGHT}" fill="none" stroke="currentColor" '
        'stroke-opacity="0.3"/>',
        f'<text x="{LEFT - 6}" y="{top + 10}" text-anchor="end" fill="currentColor">{most:.3g}</text>',
        f'<text x="{LEFT - 6}" y="{top + HEIGHT}" text-anchor="end" fill="currentColor">0</text>',
    ]
    for hour in range(0, 25, 6):
        x = LEFT + WIDTH * hour / 24
        parts.append(
            f'<text x="{x:.0f}" y="{top + HEIGHT + 14}" text-anchor="middle" fill="currentColor">{hour} h</text>'
        )
    for at, (what, values) in enumerate(lines):
        colour = COLOURS[at]
        points = " ".join(
            f"{LEFT + WIDTH * hour / 24:.1f},{top + HEIGHT * (1 - value / most):.1f}"
            for hour, value in list(zip(hours, values, strict=True))[::8]
        )
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        label = f"{name}: {what}" if what != name else name
        parts.append(f'<text x="{LEFT + 8 + 200 * at}" y="{top + 14}" fill="{colour}">{label}</text>')
    return parts
