"""Makes the golden streams of the codec that are not there yet; never touches one that is.

PYTHONPATH=tests/codec python tests/golden/make_codec_golden.py
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from pictures import photograph, source_of

from recbatch import stream
from recbatch.codec import Decoder, Encoded, ImageCodec, Settings, lossy
from recbatch.images import write_picture
from recbatch.models.photo import PhotoModel

HERE = Path(__file__).parent
CASES = {
    "trellis": (Settings(level=18, keep_originals="never"), photograph(150, 100, seed=1)),
    "trellis-grey-effort1": (
        Settings(level=9, effort=1, keep_originals="never"),
        photograph(70, 90, "L", seed=2),
    ),
    "trellis-alpha": (
        Settings(level=25, effort=9, keep_originals="never"),
        photograph(33, 65, "RGBA", seed=3),
    ),
    "irec": (Settings(level=14, coder="irec", keep_originals="never"), photograph(64, 64, seed=4)),
    "trellis-calibrated": (
        Settings(level=18, effort=7, keep_originals="never"),
        photograph(256, 192, seed=5),
    ),
    "irec-calibrated": (
        Settings(level=12, coder="irec", keep_originals="never"),
        photograph(130, 190, seed=6),
    ),
    "groups": (Settings(level=18.375, keep_originals="never"), photograph(200, 150, seed=7)),
    "groups-grey-effort1": (
        Settings(level=0, effort=1, keep_originals="never"),
        photograph(65, 64, "L", seed=8),
    ),
    "groups-calibrated": (
        Settings(level=22.5, effort=7, keep_originals="never"),
        photograph(256, 192, seed=9),
    ),
    "groups-irec": (Settings(level=11.75, coder="irec", keep_originals="never"), photograph(90, 70, seed=10)),
}


def model_of(case: str) -> str:
    """The tiny model of a case."""
    return "tiny-groups" if case.startswith("groups") else "tiny"


def main() -> None:
    torch.set_num_threads(1)
    listed = HERE / "codec" / "cases.json"
    cases = json.loads(listed.read_text()) if listed.exists() else {}
    for name, (settings, image) in CASES.items():
        target = HERE / "codec" / f"{name}.rec"
        if target.exists():
            continue
        weights = (HERE / "model" / f"{model_of(name)}.safetensors").read_bytes()
        model, decoder = PhotoModel.from_bytes(weights), Decoder(lambda head, data=weights: data)
        (encoded,) = ImageCodec(settings, weights=[weights]).encode([source_of(image)])
        assert isinstance(encoded, Encoded)
        parsed = stream.parse(encoded.stream)
        y = lossy.decode_latents(parsed, model, Decoder.coder(parsed, model))
        cases[name] = {"samples": stream.short_digest(y.numpy().astype("<i4").tobytes()).hex()}
        target.write_bytes(encoded.stream)
        target.with_suffix(".png").write_bytes(write_picture(decoder.decode(encoded.stream), "png"))
    listed.write_text(json.dumps(cases, indent=1) + "\n")


if __name__ == "__main__":
    main()
