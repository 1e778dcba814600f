"""A list of any length: identifiers in an array, rows fetched as they come into view.

A million rows cost eight megabytes of identifiers and a cache of the rows near the cursor. The caller reads
the identifiers (one indexed query) and gives a function that reads rows for some of them.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence

from hafs_tui.widgets.rows import Cells, Column, RowView

PAGE = 64
CACHED = 32 * PAGE

Fetch = Callable[[Sequence[int]], Awaitable[Mapping[int, Cells]]]


class LineList(RowView):
    """A `RowView` over `ids`; `fetch` returns cells by identifier (a row that is gone may be missing)."""

    def __init__(
        self, columns: Sequence[Column], fetch: Fetch, *, empty: str = "", id: str | None = None
    ) -> None:
        super().__init__(columns, empty=empty, id=id)
        self._fetch = fetch
        self._ids: array[int] = array("q")
        self._cells: OrderedDict[int, Cells] = OrderedDict()
        self._wanted: set[int] = set()
        self._fetching = False

    @property
    def ids(self) -> array[int]:
        """The identifiers in the order of the list; not to be changed in place."""
        return self._ids

    @property
    def cursor_id(self) -> int | None:
        """The identifier under the cursor."""
        return self._ids[self.cursor] if self._ids else None

    def set_ids(self, ids: array[int], *, follow: bool = True) -> None:
        """Show other rows. With `follow` the cursor stays on its row if that is still there."""
        kept = self.cursor_id if follow else None
        self._ids = ids
        if kept is not None and not (self.cursor < len(ids) and ids[self.cursor] == kept):
            self.set_reactive(RowView.cursor, _find(ids, kept, self.cursor))
        if not follow:
            self.set_reactive(RowView.cursor, 0)
        self.set_count(len(ids))
        self.show_row(self.cursor)
        if self.cursor_id != kept and ids:
            self.post_message(self.Moved(self, self.cursor))

    def set_columns(self, columns: Sequence[Column]) -> None:
        """Show other columns; what was fetched for the old ones is fetched again."""
        self.columns = tuple(columns)
        self._cells.clear()
        self.refresh()

    def move_to(self, identifier: int) -> bool:
        """Put the cursor on a row; False where it is not in the list."""
        index = _find(self._ids, identifier, -1)
        if index >= 0:
            self.cursor = index
        return index >= 0

    def reload(self, identifiers: Collection[int] | None = None) -> None:
        """Fetch rows again that may have changed: those named, or all in view. Old cells stay until then."""
        shown = {self._ids[index] for index in self.visible_rows()}
        if identifiers is None:
            for known in [known for known in self._cells if known not in shown]:
                del self._cells[known]
            self._want(shown)
        else:
            for gone in set(identifiers) - shown:
                self._cells.pop(gone, None)
            self._want(shown & set(identifiers))

    def cells(self, index: int) -> Cells | None:
        identifier = self._ids[index]
        found = self._cells.get(identifier)
        if found is None:
            first = index - index % PAGE
            self._want(i for i in self._ids[first : first + PAGE] if i not in self._cells)
        else:
            self._cells.move_to_end(identifier)
        return found

    def _want(self, identifiers: Collection[int] | object) -> None:
        self._wanted.update(identifiers)  # type: ignore[arg-type]
        if self._wanted and not self._fetching:
            self._fetching = True
            self.run_worker(self._fetch_wanted(), group="rows")

    async def _fetch_wanted(self) -> None:
        try:
            while self._wanted:
                # What was scrolled past meanwhile is not read: only the pages in view are.
                view = self.visible_rows()
                near = set(self._ids[max(0, view.start - PAGE) : view.stop + PAGE])
                wanted = [identifier for identifier in self._wanted if identifier in near]
                self._wanted.clear()
                if not wanted:
                    return
                rows = await self._fetch(wanted)
                for identifier, cells in rows.items():
                    self._cells[identifier] = cells
                    self._cells.move_to_end(identifier)
                while len(self._cells) > CACHED:
                    self._cells.popitem(last=False)
                arrived = [i for i in self.visible_rows() if self._ids[i] in rows]
                if arrived:
                    self.refresh_lines(arrived[0] + 1, arrived[-1] - arrived[0] + 1)
        finally:
            self._fetching = False


def _find(ids: array[int], identifier: int, otherwise: int) -> int:
    try:
        return ids.index(identifier)
    except ValueError:
        return otherwise
