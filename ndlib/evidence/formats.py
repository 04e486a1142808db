"""Tables as people keep them, brought into one form: comma, semicolon, tab or Markdown; numbers with signs and spreads.

>>> header, lines = table_lines("| Model | Top-1 |\\n|---|--:|\\n| VGG-16 | **93.2 %** |\\n")
>>> header, list(lines)
(['Model', 'Top-1'], [(3, ['VGG-16', '**93.2 %**'])])
>>> number("**93.2 %** ± 0.1")
Printed(value=Decimal('93.2'), spread=Decimal('0.1'), percent=True)
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from typing import NamedTuple

__all__ = ["Printed", "decoded", "number", "plain_name", "table_lines"]

DELIMITERS = ",;\t"
MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",  # before UTF-16, whose mark begins alike
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
RULE = re.compile(r"\s*\|?\s*:?-+:?\s*(\|\s*:?-+:?\s*)*\|?\s*")  # the line below a header in Markdown
SPREAD = re.compile(r"\s*(?:±|\+/-|\+-|\\pm)\s*(\d*[.,]?\d+)\s*%?\s*$")
IN_BRACKETS = re.compile(r"\s*\(\s*(\d*[.,]?\d+)\s*\)\s*%?\s*$")


def decoded(content: bytes) -> str:
    """The text of a file: UTF-8, or what its first bytes say, or else what Windows writes in Western Europe.

    >>> decoded("±".encode("utf-16")), decoded("±".encode("cp1252"))
    ('±', '±')
    """
    for mark, name in MARKS.items():
        if content.startswith(mark):
            return content.decode(name)
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return content.decode("cp1252")


def table_lines(text: str) -> tuple[list[str], Iterator[tuple[int, list[str]]]]:
    """The header of a table, and below it the fields of each line with its number.

    Reading the lines raises ``csv.Error`` where quotation marks do not close.

    >>> header, lines = table_lines("model;top1" + chr(10) + "VGG-16;93,2")
    >>> header, list(lines)
    (['model', 'top1'], [(2, ['VGG-16', '93.2'])])
    """
    lines = text.splitlines(keepends=True)
    first = next((n for n, line in enumerate(lines) if line.strip()), len(lines))
    if first < len(lines) and lines[first].lower().startswith("sep="):  # a hint for a spreadsheet
        first += 1
    header = lines[first] if first < len(lines) else ""
    if first + 1 < len(lines) and "|" in lines[first + 1] and RULE.fullmatch(lines[first + 1].strip()):
        return _cells(header), ((n, _cells(line)) for n, line in enumerate(lines[first + 2 :], start=first + 3))
    # What stands most often in the header; a comma inside quotation marks is none.
    delimiter = max(DELIMITERS, key=re.sub(r'"[^"]*"', "", header).count)
    reader = csv.reader(io.StringIO("".join(lines[first:]), newline=""), strict=True, delimiter=delimiter)
    names = [name.strip() for name in next(reader, [])]
    comma = delimiter != ","
    return names, (
        (first + reader.line_num, [_with_point(field) if comma else field for field in fields]) for fields in reader
    )


def _cells(line: str) -> list[str]:
    """The cells of a line of Markdown; none of an empty one."""
    line = line.strip()
    line = line.removeprefix("|").removesuffix("|")
    return [cell.replace(r"\|", "|").strip() for cell in re.split(r"(?<!\\)\|", line)] if line else []


def _with_point(field: str) -> str:
    """A decimal comma as a point, where commas do not separate the fields."""
    return re.sub(r"(?<![\d.,])(\d+),(\d+)(?![\d,])", r"\1.\2", field)


class Printed(NamedTuple):
    """A number as it was printed: how far runs spread around it if it is their mean, and whether it has a % sign.

    >>> Printed(Decimal("93.2"), None, False).percent
    False
    """

    value: Decimal
    spread: Decimal | None
    percent: bool


def number(text: str) -> Printed:
    """What a cell says: ``93.2``, ``93.2 %``, ``**93.2**``, ``93.2 ± 0.1``, ``93.2 (0.1)``.

    Raises:
        ValueError: it is no number.

    >>> number("0.9264").value
    Decimal('0.9264')
    """
    plain = (
        re.sub(r"[*_`$\u00a0\u202f]|\\text(bf|it)|[{}]", "", text).replace("\u2212", "-").replace("\\%", "%").strip()
    )
    spread = SPREAD.search(plain) or IN_BRACKETS.search(plain)
    value = (plain[: spread.start()] if spread else plain).strip()
    percent = "%" in plain
    try:
        return Printed(
            Decimal(value.removesuffix("%").strip()), Decimal(spread[1].replace(",", ".")) if spread else None, percent
        )
    except InvalidOperation:
        raise ValueError(f"no number: {text!r}") from None


def plain_name(name: str) -> str:
    """A name of a column or a data set without capitals, units and signs.

    >>> plain_name("Top-1 Accuracy (%)"), plain_name("CIFAR_10")
    ('top1accuracy', 'cifar10')
    """
    return re.sub(r"[^a-z0-9]", "", re.sub(r"[\[(].*?[\])]", "", name.casefold()))
