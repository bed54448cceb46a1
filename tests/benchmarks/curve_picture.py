"""The picture of over-optimisation that `bench learn` draws."""

import math
import statistics
from collections.abc import Sequence
from pathlib import Path


def draw(points: Sequence[dict[str, float]], file: Path) -> None:
    """Reward-model score and hidden utility over KL as SVG: one line a seed, and where the parent stands, dashed."""
    width, height, left, right, top, bottom = 680, 300, 44, 20, 46, 44
    colours = ("#1f6feb", "#bf5700", "#2da44e", "#8250df")
    seeds = sorted({point["seed"] for point in points})
    most = max(point["kl"] for point in points) or 1.0

    def across(kl: float) -> float:
        return left + kl / most * (width - left - right)

    drawn = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {2 * height}" font-family="sans-serif" '
        f'font-size="12"><rect width="{width}" height="{2 * height}" fill="white"/>'
    ]

    def line(x1: float, y1: float, x2: float, y2: float, style: str) -> None:
        drawn.append(f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" {style}/>')

    def label(x: float, y: float, words: str, style: str = 'fill="#555"') -> None:
        drawn.append(f'<text x="{x:.1f}" y="{y:.1f}" {style}>{words}</text>')

    panels = {
        "reward": "Score of the reward model it learns from",
        "utility": "Hidden utility, which it never sees",
    }
    for base, (name, title) in zip((0, height), panels.items(), strict=True):
        values = [point[name] for point in points]
        low, span = min(values), (max(values) - min(values)) or 1.0

        def up(value: float, base: int = base, low: float = low, span: float = span) -> float:
            return base + height - bottom - (value - low) / span * (height - top - bottom)

        label(left, base + 24, title, 'font-size="14"')
        for value in ticks(low, low + span):
            line(left, up(value), width - right, up(value), 'stroke="#ddd"')
            label(left - 8, up(value) + 4, f"{value:g}", 'fill="#555" text-anchor="end"')
        for value in ticks(0.0, most):
            label(
                across(value), base + height - bottom + 18, f"{value:g}", 'fill="#555" text-anchor="middle"'
            )
        axis = "KL to the parent in nats, held-out prompts"
        label((left + width - right) / 2, base + height - 8, axis, 'fill="#555" text-anchor="middle"')
        parent = statistics.mean(point[name] for point in points if point["step"] == 0)
        line(left, up(parent), width - right, up(parent), 'stroke="#555" stroke-dasharray="4 4"')
        for colour, seed in zip(colours, seeds, strict=False):
            of_seed = sorted((p for p in points if p["seed"] == seed), key=lambda p: p["step"])
            places = [(across(point["kl"]), up(point[name])) for point in of_seed]
            path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
            drawn.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
            drawn += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in places]
    for colour, seed in zip(colours, seeds, strict=False):
        label(width - right - 54 * (len(seeds) - seed), 24, f"seed {seed}", f'fill="{colour}"')
    file.write_text("\n".join([*drawn, "</svg>"]) + "\n")


def ticks(low: float, high: float) -> list[float]:
    """About five round numbers between the two."""
    raw = (high - low) / 5
    scale = 10.0 ** math.floor(math.log10(raw))
    step = next(scale * factor for factor in (1, 2, 5, 10) if scale * factor >= raw)
    return [round(step * number, 10) for number in range(math.ceil(low / step), math.floor(high / step) + 1)]
