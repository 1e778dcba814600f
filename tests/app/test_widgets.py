"""The widgets by themselves: long lists, tables, charts, gauges, code, logs, and forms by keyboard alone."""

from __future__ import annotations

import asyncio
import math
import time
from array import array
from collections.abc import Callable, Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from textual.app import App, ComposeResult
from textual.widget import Widget

from hafs_tui.background import Background
from hafs_tui.lexer import assembly, colour, generic
from hafs_tui.themes import DARK
from hafs_tui.widgets.chart import LARGEST, Chart, Series, draw, reduce_points
from hafs_tui.widgets.code_view import Block, CodeView, breaks, wrap
from hafs_tui.widgets.gauge import Gauge, bar
from hafs_tui.widgets.line_list import LineList
from hafs_tui.widgets.log_view import KEPT, LogView
from hafs_tui.widgets.rows import Cell, Cells, Column, fit
from hafs_tui.widgets.sparkline import Sparkline, spark
from hafs_tui.widgets.table import Row, Table
from tests.app.conftest import until
from tests.app.payloads import EVERYTHING


class Stage(App[None]):
    """One widget on an empty screen."""

    def __init__(self, make: Callable[[], Widget]) -> None:
        super().__init__()
        self._make = make
        self.register_theme(DARK)
        self.theme = DARK.name

    def compose(self) -> ComposeResult:
        yield self._make()


def lines(widget: Widget) -> list[str]:
    return [widget.render_line(y).text for y in range(widget.size.height)]


# Long lists


async def test_a_list_of_a_million_rows_opens_and_jumps_at_once() -> None:
    asked: list[int] = []

    async def fetch(ids: Sequence[int]) -> Mapping[int, Cells]:
        asked.extend(ids)
        return {i: (Cell(f"row {i}"),) for i in ids}

    app = Stage(lambda: LineList([Column("Row")], fetch))
    async with app.run_test(size=(80, 24)) as pilot:
        view = app.query_one(LineList)
        began = time.perf_counter()
        view.set_ids(array("q", range(1_000_000)))
        await until(lambda: "row 0" in lines(view)[1], pilot)
        await pilot.press("end")
        await until(lambda: "row 999999" in lines(view)[-1], pilot)
        await pilot.press("home")
        await until(lambda: "▸row 0" in lines(view)[1], pilot)
        assert time.perf_counter() - began < 5
        assert len(asked) < 500, "rows far from the view were fetched"


async def test_a_list_keeps_its_cursor_on_its_row_and_fetches_changed_rows_again() -> None:
    texts = {i: f"text {i}" for i in range(10)}

    async def fetch(ids: Sequence[int]) -> Mapping[int, Cells]:
        return {i: (Cell(texts[i]),) for i in ids}

    app = Stage(lambda: LineList([Column("Row")], fetch))
    async with app.run_test() as pilot:
        view = app.query_one(LineList)
        view.set_ids(array("q", range(10)))
        await pilot.press("j", "j", "j")
        assert view.cursor_id == 3
        view.set_ids(array("q", [9, 3, 0]))
        assert (view.cursor, view.cursor_id) == (1, 3)
        texts[3] = "changed"
        view.reload([3])
        await until(lambda: "changed" in lines(view)[2], pilot)
        view.set_ids(array("q"))
        assert view.cursor_id is None
        await pilot.press("down", "end", "pageup")


async def test_a_slow_fetch_never_shows_the_rows_of_another_place() -> None:
    held, release = asyncio.Event(), asyncio.Event()

    async def fetch(ids: Sequence[int]) -> Mapping[int, Cells]:
        if ids[0] < 64:
            held.set()
            await release.wait()
        return {i: (Cell(f"row {i}"),) for i in ids}

    app = Stage(lambda: LineList([Column("Row")], fetch))
    async with app.run_test() as pilot:
        view = app.query_one(LineList)
        view.set_ids(array("q", range(100_000)))
        await until(held.is_set, pilot)
        await pilot.press("end")
        assert "…" in lines(view)[1]
        release.set()
        await until(lambda: "row 99999" in lines(view)[-1], pilot)


# Cells and tables


@given(st.text(), st.integers(0, 30), st.sampled_from(["left", "right"]))
def test_fit_fills_its_width_exactly(text: str, width: int, align: str) -> None:
    from hafs_tui.sanitize import one_line

    assert cell_len(fit(one_line(text), width, align)) == width


async def test_a_table_paints_only_the_rows_that_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    app = Stage(lambda: Table([Column("A"), Column("B", 5)], empty="nothing"))
    async with app.run_test() as pilot:
        table = app.query_one(Table)
        assert "nothing" in lines(table)[1]
        rows = [Row(i, (Cell(f"a{i}"), Cell("日本語テキスト"))) for i in range(5)]
        table.set_rows(rows)
        await pilot.press("down", "down")
        assert table.cursor_key == 2
        painted: list[int] = []
        monkeypatch.setattr(Table, "refresh_row", lambda self, index: painted.append(index))
        table.set_rows([*rows[:4], Row(4, (Cell("new"), Cell("b")))])
        assert painted == [4]
        table.set_rows(list(reversed(rows)))
        assert table.cursor_key == 2
        assert all(cell_len(line) == table.size.width for line in lines(table))


# Curves and bars

VALUES = st.floats(allow_nan=True, allow_infinity=True)


@given(st.lists(VALUES, max_size=300), st.integers(1, 40))
def test_reducing_keeps_the_extremes_and_tells_what_is_no_number(values: list[float], buckets: int) -> None:
    points = [(float(x), y) for x, y in enumerate(values)]
    reduced = reduce_points(points, buckets)
    finite = [y for _, y in points if abs(y) <= LARGEST]
    assert len(reduced.points) <= max(2 * buckets, 0)
    assert len(reduced.broken) <= buckets or len(reduced.broken) <= len(values)
    assert bool(reduced.broken) == (len(finite) < len(values))
    if finite and len(finite) > 2 * buckets:
        kept = [y for _, y in reduced.points]
        assert min(kept) == min(finite) or finite[-1] in kept
        assert [x for x, _ in reduced.points] == sorted(x for x, _ in reduced.points)


@given(st.lists(VALUES, max_size=60), st.integers(0, 60), st.integers(0, 20))
def test_a_chart_of_anything_fits_any_size(values: list[float], width: int, height: int) -> None:
    points = [(float(x), y) for x, y in enumerate(values)]
    drawn = draw([Series("loss", points)], width, height, x_label="step", empty="none")
    assert len(drawn) <= max(height, 1)


def test_a_spike_in_a_hundred_thousand_points_is_drawn_and_nan_is_marked() -> None:
    points = [(float(i), 9.0 if i == 50_123 else 1.0) for i in range(100_000)]
    points[70_000] = (70_000.0, math.nan)
    began = time.perf_counter()
    drawn = draw([Series("loss", points)], 80, 20, x_label="step", empty="")
    assert time.perf_counter() - began < 1
    text = ["".join(part for part, _ in line) for line in drawn]
    assert "9" in text[1]
    assert any("⠀" < glyph <= "⣿" for glyph in text[1])
    assert "×" in text[1]


def test_series_differ_without_colour() -> None:
    flat = [(float(i), 1.0) for i in range(80)]
    shifted = [(float(i), 2.0) for i in range(80)]
    drawn = draw([Series("a", flat), Series("b", shifted)], 60, 10, x_label="step", empty="")
    first = "".join(part for part, name in drawn[-3] if name == "0")
    second = "".join(part for part, name in drawn[1] if name == "1")
    assert len(set(second)) > len(set(first)) or second != first


async def test_a_chart_changes_in_place() -> None:
    app = Stage(Chart)
    async with app.run_test(size=(60, 15)) as pilot:
        chart = app.query_one(Chart)
        assert "No points" in lines(chart)[0]
        chart.set_series([Series("loss", [(1.0, 3.0), (2.0, 1.5)])])
        await pilot.pause()
        assert "loss 1.5" in lines(chart)[0]
        chart.set_series([Series("[/foo]\x1b]52;", [(1.0, 3.0), (2.0, math.nan)])])
        assert "not a number" in lines(chart)[0]
        assert "\x1b" not in "".join(lines(chart))


@given(st.lists(VALUES, max_size=50), st.integers(0, 30))
def test_a_sparkline_has_its_width(values: list[float], width: int) -> None:
    assert len(spark(values, width)) == width


@given(st.floats(allow_nan=True), st.integers(0, 40))
def test_a_bar_has_its_width(share: float, width: int) -> None:
    assert len(bar(share, width)) == width


# Code and logs


@given(st.text())
def test_colouring_never_changes_the_text(text: str) -> None:
    for line, pieces in zip(text.split("\n"), colour(text), strict=True):
        assert "".join(piece for piece, _ in pieces) == line
    for lexer in (assembly, generic):
        assert "".join(piece for piece, _ in lexer(text)) == text


@given(st.text(alphabet=st.sampled_from("ab 日한é")), st.integers(2, 20))
def test_wrapping_loses_nothing_and_fits(text: str, width: int) -> None:
    wrapped = wrap([(text, "")], width)
    assert "".join(piece for line in wrapped for piece, _ in line) == text
    assert all(cell_len("".join(piece for piece, _ in line)) <= width + 1 for line in wrapped)
    assert breaks(text, width)[-1] == len(text)


def test_assembly_is_coloured_by_what_it_is() -> None:
    names = dict(assembly("Loop: lda.w #$1F,x ; again"))
    assert names["Loop:"] == "label"
    assert names["lda"] == "keyword"
    assert names["#$1F"] == "number"
    assert names["; again"] == "comment"


async def test_a_log_follows_its_end_and_forgets_its_beginning() -> None:
    app = Stage(LogView)
    async with app.run_test(size=(40, 10)) as pilot:
        log = app.query_one(LogView)
        log.append(f"line {n}" for n in range(KEPT + 50))
        await pilot.pause()
        assert log.line_count == KEPT
        assert f"line {KEPT + 49}" in lines(log)[-1]
        log.scroll_to(y=0, animate=False)
        await pilot.pause()
        log.append(["newest"])
        await pilot.pause()
        assert "line 51" in lines(log)[0], "the view jumped while somebody was reading"


@pytest.mark.parametrize(
    "make",
    [
        lambda: _filled(Table([Column("A")]), lambda w: w.set_rows([Row(1, (Cell(EVERYTHING),))])),
        lambda: _filled(CodeView(), lambda w: w.set_blocks([Block(EVERYTHING, EVERYTHING)])),
        lambda: _filled(LogView(), lambda w: w.append([EVERYTHING])),
        lambda: _filled(Gauge(EVERYTHING), lambda w: w.set_value(0.5, EVERYTHING)),
        lambda: _filled(Chart(), lambda w: w.set_series([Series(EVERYTHING, [(0.0, 1.0), (1.0, 2.0)])])),
        lambda: _filled(Sparkline(), lambda w: w.set_values([1.0, math.nan])),
    ],
    ids=["table", "code", "log", "gauge", "chart", "sparkline"],
)
async def test_hostile_text_is_harmless_in_each_widget(make: Callable[[], Widget]) -> None:
    app = Stage(make)
    async with app.run_test(size=(90, 30)) as pilot:
        await pilot.pause()
        text = "".join(segment.text for strip in app.screen._compositor.render_strips() for segment in strip)
        assert text.replace("\n", "").isprintable()
        text.encode()


def _filled(widget: Widget, fill: Callable[..., object]) -> Widget:
    widget.call_later(fill, widget)
    return widget


# Work behind the screens


async def test_background_work_ends_awaited_and_its_failures_are_told() -> None:
    told: list[tuple[str, str]] = []
    ended: list[str] = []

    async def forever(name: str) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append(name)

    async def fails() -> None:
        raise RuntimeError("no")

    async with Background() as background:
        background.told = lambda name, error: told.append((name, str(error)))
        assert background.start("campaign a", forever("a"))
        assert not background.start("campaign a", forever("again"))
        background.start("broken", fails())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert background.runs("campaign a")
        assert not background.runs("broken")
    assert told == [("broken", "no")]
    assert ended == ["a"]


async def test_background_failures_that_nobody_hears_are_raised() -> None:
    async def fails() -> None:
        raise RuntimeError("no")

    background = Background()
    background.start("broken", fails())
    await asyncio.sleep(0)
    with pytest.raises(ExceptionGroup):
        await background.__aexit__(None, None, None)
