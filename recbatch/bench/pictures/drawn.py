"""Kinds that somebody drew: lines, maps, flat graphics, charts, pixel art, codes of squares.

Shapes: H height, W width, C channels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from recbatch.bench.extras import need
from recbatch.bench.pictures.brush import (
    HEIGHT,
    INK,
    WHITE,
    WIDTH,
    Colour,
    Pixels,
    Random,
    canvas,
    clipped,
    font,
    pixels_of,
    words,
)

FINER = 3  # what is drawn so much larger and then scaled down has soft edges
FLAT: tuple[Colour, ...] = (
    (231, 76, 60),
    (46, 204, 113),
    (52, 152, 219),
    (241, 196, 15),
    (155, 89, 182),
    (52, 73, 94),
)


def lines(rng: Random) -> Pixels:
    """Line art: thin antialiased curves and hatching, black on white."""
    image, draw = canvas(width=FINER * WIDTH, height=FINER * HEIGHT)
    for _ in range(70):
        draw.line(_curve(rng, FINER * WIDTH, FINER * HEIGHT), fill=INK, width=int(rng.integers(3, 8)))
    for _ in range(12):
        x, y = int(rng.integers(0, FINER * WIDTH)), int(rng.integers(0, FINER * HEIGHT))
        for n in range(0, 240, 15):
            draw.line((x + n, y, x + n + 120, y + 240), fill=INK, width=3)
    return pixels_of(image.resize((WIDTH, HEIGHT), Image.Resampling.BOX))


def city_map(rng: Random) -> Pixels:
    """A street map: land, water, parks, a grid of cased roads, names."""
    image, draw = canvas((242, 239, 233), width=FINER * WIDTH, height=FINER * HEIGHT)
    wide, high = FINER * WIDTH, FINER * HEIGHT
    for colour, count in (((170, 211, 223), 2), ((200, 230, 180), 6), ((224, 223, 223), 40)):
        for _ in range(count):
            x, y = rng.integers(0, wide), rng.integers(0, high)
            radius = 60 if count == 40 else 360
            points = [
                (x + radius * r * np.cos(a), y + radius * r * np.sin(a))
                for a, r in zip(np.linspace(0, 2 * np.pi, 12)[:-1], rng.uniform(0.5, 1, 11), strict=True)
            ]
            draw.polygon(points, fill=colour)
    roads = [_curve(rng, wide, high) for _ in range(4)]
    streets = [[(x, 0), (x + int(rng.integers(-90, 90)), high)] for x in range(60, wide, 150)]
    streets += [[(0, y), (wide, y + int(rng.integers(-90, 90)))] for y in range(60, high, 150)]
    for paths, casing, fill, width in (
        (streets, (200, 200, 200), WHITE, 13),
        (roads, (222, 150, 70), (252, 214, 164), 30),
    ):
        for path in paths:
            draw.line(path, fill=casing, width=width + 6, joint="curve")
        for path in paths:
            draw.line(path, fill=fill, width=width, joint="curve")
    image = image.resize((WIDTH, HEIGHT), Image.Resampling.BOX)
    draw, source = ImageDraw.Draw(image), words(rng)
    for _ in range(45):
        place = int(rng.integers(0, WIDTH - 60)), int(rng.integers(0, HEIGHT - 14))
        draw.text(place, next(source), font=font(11), fill=(70, 70, 80), stroke_width=1, stroke_fill=WHITE)
    return pixels_of(image)


def comic(rng: Random) -> Pixels:
    """Flat colours with thick soft outlines, and dots of print in some of them."""
    image, draw = canvas((255, 244, 214), width=FINER * WIDTH, height=FINER * HEIGHT)
    for n in range(26):
        x, y = int(rng.integers(0, FINER * WIDTH)), int(rng.integers(0, FINER * HEIGHT))
        r = int(rng.integers(80, 330))
        colour = FLAT[int(rng.integers(len(FLAT)))]
        draw.ellipse((x - r, y - r, x + r, y + r), fill=colour, outline=INK, width=12)
        if n % 3 == 0:
            for i in range(-r, r, 21):
                for j in range(-r, r, 21):
                    if i * i + j * j < (r - 24) ** 2:
                        draw.ellipse((x + i - 6, y + j - 6, x + i + 6, y + j + 6), fill=WHITE)
    return pixels_of(image.resize((WIDTH, HEIGHT), Image.Resampling.BOX))


def curves_chart(rng: Random) -> Pixels:
    """A chart of curves with a legend."""
    steps = np.cumsum(rng.normal(0, 1, (6, 300)), axis=1)
    return _chart(lambda axes: [axes.plot(row, lw=1.2, label=f"series {n}") for n, row in enumerate(steps)])


def bars_chart(rng: Random) -> Pixels:
    """A chart of bars and dots."""

    def draw(axes: Any) -> None:
        axes.bar(np.arange(14), rng.uniform(1, 9, 14), color=[f"C{n % 10}" for n in range(14)], label="bars")
        axes.scatter(rng.uniform(0, 13, 400), rng.uniform(0, 10, 400), s=6, c="k", alpha=0.5, label="dots")

    return _chart(draw)


def pixel_art(rng: Random, *, scale: int = 8) -> Pixels:
    """A scene of large square pixels in a small palette, with mirrored figures."""
    palette = np.array([(34, 32, 52), (99, 155, 255), (106, 190, 48), (143, 86, 59), *FLAT, WHITE], np.uint8)
    high, wide = HEIGHT // scale, WIDTH // scale
    scene_HW = np.ones((high, wide), np.int64)
    ground_W = high * 2 // 3 + np.round(np.cumsum(rng.normal(0, 0.7, wide))).astype(np.int64)
    scene_HW[np.arange(high)[:, None] > ground_W[None, :]] = 2
    scene_HW[np.arange(high)[:, None] > ground_W[None, :] + 4] = 3
    scene_HW[(scene_HW == 3) & (rng.random((high, wide)) < 0.1)] = 0
    for _ in range(26):
        half = rng.integers(4, len(palette), (9, 4)) * (rng.random((9, 4)) < 0.7)
        figure = np.concatenate([half, half[:, ::-1]], axis=1)
        y, x = int(rng.integers(0, high - 9)), int(rng.integers(0, wide - 8))
        place = scene_HW[y : y + 9, x : x + 8]
        place[figure > 0] = figure[figure > 0]
    out_HWC: Pixels = palette[np.kron(scene_HW, np.ones((scale, scale), np.int64))]
    return out_HWC


def squares(rng: Random) -> Pixels:
    """Codes for machines: random black squares on white."""
    image, _ = canvas()
    for left in (24, 392):
        code = Image.fromarray((rng.random((39, 39)) < 0.5).astype(np.uint8) * 255)
        image.paste(code.resize((351, 351), Image.Resampling.NEAREST), (left, 60))
    return pixels_of(image.convert("L"))


def dithered(rng: Random) -> Pixels:
    """Soft blobs in black and white dots, by error diffusion."""
    coarse = Image.fromarray(rng.integers(0, 256, (9, 13), np.uint8))
    return pixels_of(coarse.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC).convert("1").convert("L"))


def _curve(rng: Random, width: int, height: int) -> list[tuple[float, float]]:
    """Points of a smooth curve through four random places (cubic Bezier)."""
    p = rng.uniform(-0.1, 1.1, (4, 2)) * (width, height)
    t = np.linspace(0, 1, 60)[:, None]
    points = (1 - t) ** 3 * p[0] + 3 * t * (1 - t) ** 2 * p[1] + 3 * t**2 * (1 - t) * p[2] + t**3 * p[3]
    return [(float(x), float(y)) for x, y in points]


def _chart(draw: Callable[[Any], object]) -> Pixels:
    need("matplotlib")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH / 96, HEIGHT / 96), dpi=96, layout="constrained")
    axes = figure.subplots()
    draw(axes)
    axes.set_xlabel("time, days")
    axes.set_ylabel("units")
    axes.grid(alpha=0.4)
    axes.legend(fontsize=8)
    canvas_of = FigureCanvasAgg(figure)
    canvas_of.draw()  # type: ignore[no-untyped-call]
    return clipped(np.asarray(canvas_of.buffer_rgba())[:, :, :3])  # type: ignore[no-untyped-call]
