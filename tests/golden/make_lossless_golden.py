"""Makes the golden lossless streams that are not there yet; never touches one that is.

PYTHONPATH=tests/codec python tests/golden/make_lossless_golden.py
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import torch
from pictures import file_of, photograph
from PIL import Image

from recbatch import rec
from recbatch.codec import Decoder, lossless, lossy, webp_pixels
from recbatch.images import pixels_sha256, read_picture
from recbatch.images.png import recipe
from recbatch.models.lossless.folded import LosslessModel
from recbatch.models.photo import PhotoModel

HERE = Path(__file__).parent
CASES: dict[str, tuple[Image.Image, bool]] = {  # and whether it has a preview
    "plain": (photograph(100, 70, seed=11), False),
    "plain-grey": (photograph(70, 90, "L", seed=12), False),
    "lanes-and-bands": (photograph(125, 135, seed=13), False),
    "small-alpha": (photograph(33, 47, "RGBA", seed=14), False),
    "one-pixel": (photograph(1, 1, "LA", seed=15), False),
    "one-row": (photograph(211, 1, seed=16), False),
    "one-column": (photograph(1, 75, "L", seed=17), False),
    "two-tiles": (photograph(2, 2049, "L", seed=18), False),
    "preview": (photograph(90, 75, seed=19), True),
    "preview-lanes-grey": (photograph(130, 140, "L", seed=20), True),
    "file": (photograph(17, 9, seed=21), False),
}
WEBP_CASES: dict[str, Image.Image] = {  # few colours, in pieces that come again
    "pixels-webp": photograph(60, 50, seed=22).quantize(12).convert("RGB"),
    "pixels-webp-grey-alpha": photograph(31, 40, "LA", seed=23).point([v & 192 for v in range(256)] * 2),
    "pixels-webp-tiles": photograph(2049, 3, seed=24).quantize(5).convert("RGB"),
}


def main() -> None:
    torch.set_num_threads(1)
    files = [(HERE / "model" / f"{name}.safetensors").read_bytes() for name in ("tiny", "tiny-exact")]
    photo, model = PhotoModel.from_bytes(files[0]), LosslessModel.from_bytes(files[1])
    previews = lossless.PreviewMaker(photo, rec.coder("trellis", effort=5, tables=lossy.tables_of(photo)))
    by_head = {hashlib.sha256(data).digest()[: 8 if data is files[0] else 4]: data for data in files}
    decoder = Decoder(by_head.__getitem__)
    listed = HERE / "lossless" / "cases.json"
    cases = json.loads(listed.read_text()) if listed.exists() else {}
    for name, (image, with_preview) in CASES.items():
        target = HERE / "lossless" / f"{name}.rec"
        if target.exists():
            continue
        data = file_of(image, compress_level=0)
        picture = read_picture(data)
        made = recipe(data) if name == "file" else b""
        assert made is not None
        (coded,) = lossless.encode([picture], [made], model, previews if with_preview else None)
        again = decoder.decode(coded.data)
        assert pixels_sha256(again) == pixels_sha256(picture), name
        cases[name] = {"pixels": pixels_sha256(picture).hex()}
        if made:
            assert decoder.file(coded.data, again) == data
            cases[name]["file"] = hashlib.sha256(data).hexdigest()
        target.write_bytes(coded.data)
    for name, image in WEBP_CASES.items():
        target = HERE / "lossless" / f"{name}.rec"
        if target.exists():
            continue
        picture = read_picture(file_of(image))
        tried = webp_pixels.attempt(picture, b"")
        assert tried is not None
        assert pixels_sha256(decoder.decode(tried.coded.data)) == pixels_sha256(picture), name
        cases[name] = {"pixels": pixels_sha256(picture).hex()}
        target.write_bytes(tried.coded.data)
    listed.write_text(json.dumps(cases, indent=1) + "\n")


if __name__ == "__main__":
    main()
