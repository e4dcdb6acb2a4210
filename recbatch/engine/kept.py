"""What to say of a row that is not coded again: it stays, and the remedies of ``compress`` are not its own.

An image that ``compress`` gives up becomes a quarantined row, and ``--retry-quarantined`` tries it again. A row that
``recompress`` gives up lacks the wanted settings still, so the same command tries it again by itself.
"""

from __future__ import annotations

from dataclasses import replace

from recbatch.engine import errors, events

_AGAIN = "and run the same command again"
_REMEDIES = {
    errors.SourceVanished.code: (
        f"{errors.SourceVanished.problem}. {errors.SourceVanished.remedy}",
        f"its source is gone, so its row stays. Put it back {_AGAIN}, or use --sources-moved or --from-archive.",
    ),
    errors.UnreadableFile.code: (
        errors.UnreadableFile.remedy,
        f"Its row stays. Check the file's permissions, {_AGAIN}.",
    ),
    errors.NotAFile.code: (
        errors.NotAFile.remedy,
        f"Its row stays. Put the source back, or name its place with --sources-moved, {_AGAIN}.",
    ),
    errors.PoisonImage.code: (
        errors.PoisonImage.remedy,
        f"Its row stays. Look at the file, give workers more memory, {_AGAIN}.",
    ),
}


def of_row(key: str, code: str, sentence: str) -> tuple[str, str, str]:
    """A failure in the words of a recompression."""
    old, new = _REMEDIES.get(code, ("", ""))
    return key, code, sentence.removesuffix(old) + new if old and sentence.endswith(old) else sentence


def told_of_rows(progress: events.Progress) -> events.Progress:
    """The same listener, which hears such words."""

    def tell(event: events.Event) -> None:
        if isinstance(event, events.ImageQuarantined):
            _, _, sentence = of_row(event.key, event.code, event.error)
            event = replace(event, error=sentence)
        progress(event)

    return tell
