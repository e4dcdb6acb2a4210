"""What can be wrong with a PNG file that is rebuilt, beside damage."""

from __future__ import annotations

from recbatch.errors import CorruptData


class OtherZlib(CorruptData):
    """A PNG file was deflated by another zlib than is at hand, and can't be rebuilt byte for byte here."""

    code = "other-zlib"

    def __init__(self, made_with: str, at_hand: str) -> None:
        super().__init__(made_with, at_hand)
        self.made_with, self.at_hand = made_with, at_hand

    def __str__(self) -> str:
        return (
            f"The PNG file was proved with {self.made_with}, and {self.at_hand} here gives other bytes. "
            f"The pixels are whole: restore it with --format png, or on a machine with that zlib."
        )
