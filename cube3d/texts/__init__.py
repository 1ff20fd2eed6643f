"""Plain texts that a reader is distilled on: where they come from, how they are cut, and what must not be in them."""

from cube3d.texts.choice import chosen
from cube3d.texts.heldout import HeldOut
from cube3d.texts.sources import PAIRS, read_texts

__all__ = ["PAIRS", "HeldOut", "chosen", "read_texts"]
