"""Fonts of figures: what to fall back on for characters that the first one lacks, and what none of them has."""

from collections.abc import Mapping
from functools import cache

from matplotlib import font_manager

FIRST = "DejaVu Sans"
# Fonts that systems bring along for scripts that the first one lacks, in the order in which they are asked.
FALLBACKS = (
    "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans CJK KR", "Noto Sans SC", "Noto Sans JP", "Noto Sans KR",
    "Source Han Sans SC", "Source Han Sans CN", "WenQuanYi Micro Hei", "WenQuanYi Zen Hei", "PingFang SC", "Heiti SC",
    "Hiragino Sans GB", "Hiragino Sans", "Apple SD Gothic Neo", "Microsoft YaHei", "SimHei", "SimSun", "MS Gothic",
    "Yu Gothic", "Malgun Gothic", "Arial Unicode MS", "Droid Sans Fallback", "Noto Sans Devanagari", "Noto Sans Thai",
    "Noto Sans Bengali", "Noto Sans Tamil", "Nirmala UI", "Leelawadee UI", "Noto Sans Symbols2",
)  # fmt: skip


@cache
def families() -> tuple[str, ...]:
    """The fonts of figures that are installed, in the order in which a character is looked for."""
    installed = {font.name for font in font_manager.fontManager.ttflist}
    return (FIRST, *(name for name in FALLBACKS if name in installed))


def numbered(text: str, numbers: dict[str, int]) -> str:
    """A text in which each run of characters that no font has is a number in brackets, alike in all texts of a figure.

    numbers: the runs met so far, in order; new ones are added.
    """
    if all(ord(letter) in _characters() or letter.isspace() for letter in text):
        return text
    parts: list[str] = []
    run = ""
    for letter in [*text, ""]:
        if letter and ord(letter) not in _characters() and not letter.isspace():
            run += letter
            continue
        if run:
            parts.append(f"[{numbers.setdefault(run, len(numbers) + 1)}]")
            run = ""
        parts.append(letter)
    return "".join(parts)


def key(numbers: Mapping[str, int]) -> str:
    """What the numbers stand for, in a sentence; empty where there are none."""
    if not numbers:
        return ""
    pairs = ", ".join(f"[{number}] for {run}" for run, number in numbers.items())
    return f" In the PNG stands {pairs}: no installed font has these characters."


@cache
def _characters() -> frozenset[int]:
    paths = (font_manager.findfont(name) for name in families())
    return frozenset(code for path in paths for code in font_manager.get_font(path).get_charmap())
