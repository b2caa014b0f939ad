"""Text that a spreadsheet would read as a formula: `predict` writes a single quote before it, and readers drop it."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

# What a spreadsheet may read as a formula when it opens a CSV ("CSV injection"), and numbers, which begin alike.
# = + - @ have other forms in Unicode (equal under NFKC), and a program may drop blanks and zero-width characters.
_SIGN = r"=+\-@\x{207A}\x{207C}\x{208A}\x{208C}\x{FB29}\x{FE62}\x{FE63}\x{FE66}\x{FE6B}\x{FF0B}\x{FF0D}\x{FF1D}\x{FF20}"
_UNSEEN = r"\p{Cc}\p{Cf}\p{Z}\p{Default_Ignorable_Code_Point}"
_FORMULA = rf"^([{_SIGN}\t\r\n]| *[[{_UNSEEN}]--[ ]][{_UNSEEN}]*[{_SIGN}])"
_NUMBER = r"^[+-]?([0-9]+([.,][0-9]*)?|[.,][0-9]+)([eE][+-]?[0-9]+)?$"


def quoted(column: str) -> pl.Expr:
    """The column with a single quote before text that begins like a formula, except for plain numbers."""
    cell = pl.col(column).cast(pl.String)
    return pl.when(_is_formula(cell)).then("'" + cell).otherwise(cell).alias(column)


def unquoted(frame: pl.DataFrame) -> pl.DataFrame:
    """The frame without the quotes that `quoted` has put before text; all other quotes stay."""
    texts = [column for column, dtype in frame.schema.items() if dtype == pl.String]
    if not texts:
        return frame
    begins = frame.select(pl.col(texts).str.starts_with("'").any()).row(0, named=True)
    # Few columns have such a cell, and the pattern takes longer than all else.
    return frame.with_columns(_without_quote(column) for column, is_there in begins.items() if is_there)


def unquoted_names(names: Sequence[str]) -> list[str]:
    """The same for names of columns."""
    if not any(name.startswith("'") for name in names):
        return list(names)
    return unquoted(pl.DataFrame({"name": list(names)}, schema={"name": pl.String}))["name"].to_list()


def _without_quote(column: str) -> pl.Expr:
    cell = pl.col(column)
    rest = cell.str.slice(1)
    return pl.when(cell.str.starts_with("'") & _is_formula(rest)).then(rest).otherwise(cell).alias(column)


def _is_formula(cell: pl.Expr) -> pl.Expr:
    return cell.str.contains(_FORMULA) & ~cell.str.contains(_NUMBER)
