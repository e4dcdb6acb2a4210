"""Kinds that are mostly letters: pages, screens, scans, tables.

Shapes: H height, W width, C channels.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from recbatch.bench.pictures.brush import (
    HEIGHT,
    INK,
    WIDTH,
    Colour,
    Pixels,
    Random,
    canvas,
    clipped,
    font,
    paragraph,
    pixels_of,
    words,
)

BLUE: Colour = (36, 92, 190)
SYNTAX: tuple[Colour, ...] = (
    (86, 156, 214),
    (206, 145, 120),
    (181, 206, 168),
    (220, 220, 170),
    (212, 212, 212),
)


def page(rng: Random, *, mode: str = "L") -> Pixels:
    """A dense page of two columns, grey, with antialiased letters."""
    image, draw = canvas()
    draw.text((40, 18), "Quaistro themond grailen", font=font(30), fill=INK)
    for left in (40, WIDTH // 2 + 12):
        paragraph(draw, (left, 70, left + WIDTH // 2 - 56, HEIGHT - 20), rng, size=11)
    return pixels_of(image.convert(mode))


def on_gradients(rng: Random) -> Pixels:
    """Coloured letters of many sizes on colour gradients."""
    image = Image.fromarray(gradient(rng, WIDTH, HEIGHT))
    draw, source = ImageDraw.Draw(image), words(rng)
    for _ in range(60):
        place = int(rng.integers(0, WIDTH - 60)), int(rng.integers(0, HEIGHT - 20))
        colour = tuple(int(c) for c in rng.integers(0, 256, 3))
        draw.text(place, f"{next(source)} {next(source)}", font=font(int(rng.integers(11, 40))), fill=colour)
    return pixels_of(image)


def code(rng: Random) -> Pixels:
    """A dark editor: short lines of small letters in five colours, line numbers, a scroll bar."""
    image, draw = canvas((30, 30, 30))
    draw.rectangle((0, 0, 44, HEIGHT), fill=(37, 37, 38))
    draw.rectangle((WIDTH - 12, 0, WIDTH, HEIGHT), fill=(51, 51, 51))
    draw.rectangle((WIDTH - 12, 90, WIDTH, 170), fill=(96, 96, 96))
    source, letters = words(rng), font(12)
    for n in range(HEIGHT // 17):
        y = 4 + 17 * n
        draw.text((12, y), f"{n + 1:3d}", font=letters, fill=(133, 133, 133))
        x = 54 + 22 * int(rng.integers(0, 5))
        for _ in range(int(rng.integers(0, 8))):
            word = next(source).lower().strip(".,") + str(rng.choice(["", " =", "(", ")", ":", ".", " +"]))
            draw.text((x, y), word, font=letters, fill=SYNTAX[int(rng.integers(len(SYNTAX)))])
            x += round(draw.textlength(word, font=letters)) + 5
    return pixels_of(image)


def screenshot(rng: Random, photograph: Pixels | None) -> Pixels:
    """A window with a title bar, icons, a menu, text, buttons, and a photograph where there is one."""
    image, draw = canvas((236, 239, 244))
    draw.rectangle((0, 0, WIDTH, 34), fill=(222, 226, 233))
    for n, colour in enumerate(((237, 106, 94), (245, 191, 79), (98, 197, 84))):
        draw.ellipse((12 + 20 * n, 11, 24 + 20 * n, 23), fill=colour)
    draw.rounded_rectangle((120, 6, 560, 28), 8, fill=(255, 255, 255), outline=(190, 195, 204))
    draw.text((134, 9), "https://thestra.example/goulen/trea", font=font(12), fill=(96, 100, 108))
    draw.rectangle((0, 35, 150, HEIGHT), fill=(46, 52, 64))
    source = words(rng)
    for n in range(14):
        y = 52 + 32 * n
        tint = tuple(int(c) for c in rng.integers(90, 230, 3))
        draw.rounded_rectangle((14, y, 32, y + 18), 4, fill=tint)
        draw.text((42, y + 2), next(source), font=font(12), fill=(216, 222, 233))
    draw.text((176, 52), f"{next(source)} {next(source)} {next(source)}", font=font(24), fill=INK)
    paragraph(draw, (176, 92, 440, 440), rng, size=12)
    for n, label in enumerate(("Grai", "Thone", "Quist")):
        left = 176 + 92 * n
        draw.rounded_rectangle((left, 456, left + 80, 486), 6, fill=BLUE if n == 0 else (255, 255, 255))
        draw.rounded_rectangle((left, 456, left + 80, 486), 6, outline=(150, 160, 180))
        draw.text((left + 22, 463), label, font=font(13), fill=(255, 255, 255) if n == 0 else INK)
    if photograph is not None:
        inlay = Image.fromarray(photograph).resize((296, 222), Image.Resampling.LANCZOS)
        image.paste(inlay, (456, 92))
    paragraph(draw, (456, 324 if photograph is not None else 92, 750, 490), rng, size=11, fill=(90, 94, 104))
    return pixels_of(image)


def table(rng: Random) -> Pixels:
    """A spreadsheet: hairlines, rows of two tints, right-aligned numbers."""
    image, draw = canvas()
    letters, source = font(12), words(rng)
    for row in range(HEIGHT // 20 + 1):
        y = 20 * row
        fill = BLUE if row == 0 else (242, 246, 252) if row % 2 else (255, 255, 255)
        draw.rectangle((0, y, WIDTH, y + 19), fill=fill)
        draw.line((0, y + 19, WIDTH, y + 19), fill=(208, 213, 222))
        for column in range(8):
            right = 96 * (column + 1)
            draw.line((right - 1, y, right - 1, y + 19), fill=(208, 213, 222))
            if row == 0 or column == 0:
                draw.text(
                    (right - 90, y + 3), next(source)[:10], font=letters, fill=INK if row else (255, 255, 255)
                )
            else:
                number = f"{rng.lognormal(5, 2):,.2f}"
                draw.text((right - 6, y + 3), number, font=letters, fill=INK, anchor="ra")
    return pixels_of(image)


def scan(rng: Random) -> Pixels:
    """A printed page as a scanner sees it: askew, soft, on yellowed paper, with noise and a shadow at the fold."""
    flat = Image.fromarray(page(rng)[:, :, 0])
    turned = flat.rotate(1.3, Image.Resampling.BICUBIC, fillcolor=255).filter(ImageFilter.GaussianBlur(0.7))
    ink_HW = np.asarray(turned, np.float64) / 255
    fold_W = 1 - 0.35 * np.exp(-np.arange(WIDTH) / 40)
    paper_HWC = np.array([236, 228, 208]) * fold_W[None, :, None] * np.ones((HEIGHT, 1, 1))
    inked_HWC = 40 + (paper_HWC - 40) * ink_HW[:, :, None]
    grain_HW = rng.normal(0, 5, (HEIGHT, WIDTH))
    return clipped(inked_HWC + grain_HW[:, :, None] + rng.normal(0, 2, inked_HWC.shape))


def gradient(rng: Random, width: int, height: int) -> Pixels:
    """A smooth blend between four random corner colours, without noise and without dither."""
    corners = rng.integers(20, 236, (2, 2, 3)).astype(np.float64)
    y_H, x_W = np.linspace(0, 1, height)[:, None, None], np.linspace(0, 1, width)[None, :, None]
    top_WC = corners[0, 0] * (1 - x_W) + corners[0, 1] * x_W
    bottom_WC = corners[1, 0] * (1 - x_W) + corners[1, 1] * x_W
    return clipped(top_WC * (1 - y_H) + bottom_WC * y_H)
