"""A table of a few rows (under two hundred), all given at once and painted only where they changed."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from hafs_tui.widgets.rows import Cell, Cells, Column, RowView

__all__ = ["Cell", "Column", "Row", "Table"]


@dataclass(frozen=True, slots=True)
class Row:
    """Cells under a key that stays the same while the row changes."""

    key: Hashable
    cells: Cells


class Table(RowView):
    """Shows `rows` in their order; the cursor stays on its key."""

    def __init__(self, columns: Sequence[Column], *, empty: str = "", id: str | None = None) -> None:
        super().__init__(columns, empty=empty, id=id)
        self._rows: tuple[Row, ...] = ()

    @property
    def cursor_key(self) -> Hashable | None:
        """The key of the row under the cursor, None in an empty table."""
        return self._rows[self.cursor].key if self._rows else None

    def cells(self, index: int) -> Cells | None:
        return self._rows[index].cells

    def set_rows(self, rows: Sequence[Row]) -> None:
        """Show other rows, painting only the lines that differ."""
        old, kept = self._rows, self.cursor_key
        self._rows = tuple(rows)
        keys = [row.key for row in self._rows]
        moved = False
        if kept in keys and keys.index(kept) != self.cursor:
            self.set_reactive(RowView.cursor, keys.index(kept))
            moved = True
        if len(old) != len(self._rows) or moved:
            self.set_count(len(self._rows))
            self.show_row(self.cursor)
        else:
            for index, (before, after) in enumerate(zip(old, self._rows, strict=True)):
                if before != after:
                    self.refresh_row(index)
        if self.cursor_key != kept and self._rows:
            self.post_message(self.Moved(self, self.cursor))

    def move_to(self, key: Hashable) -> bool:
        """Put the cursor on the row with this key; False where there is none."""
        for index, row in enumerate(self._rows):
            if row.key == key:
                self.cursor = index
                return True
        return False
