"""Campaigns from the screen: made by a form, run in the app, paused, cancelled, and shown while they go on."""

from __future__ import annotations

import asyncio

from textual.pilot import Pilot
from textual.widgets import Input, Select, SelectionList

from backend.generation.campaigns import NewCampaign, create
from backend.generation.engine import run_campaign
from backend.generation.progress import progress_of
from backend.settings import Workspace
from backend.store import campaigns
from hafs_tui.app import HafsApp
from hafs_tui.background import Background
from hafs_tui.screens.campaigns import CampaignsScreen
from hafs_tui.screens.review import ReviewScreen
from hafs_tui.widgets.confirm import Confirm
from hafs_tui.widgets.form import Form
from hafs_tui.widgets.table import Table
from tests.app.conftest import until
from tests.app.looks import shown
from tests.fixtures.words_domain import repeat, write_domain
from tests.servers.faults import Fault, always, status
from tests.servers.openai_server import OpenAIServer


async def open_campaigns(app: HafsApp, pilot: Pilot[None], rows: int) -> CampaignsScreen:
    await pilot.press("2")
    screen = app.screen
    assert isinstance(screen, CampaignsScreen)
    await until(lambda: screen.snapshot and screen.query_one("#campaigns", Table).row_count == rows, pilot)
    return screen


async def make(ws: Workspace, name: str, url: str, target: int = 12) -> None:
    write_domain(ws.home)
    await create(
        ws,
        NewCampaign(name=name, provider="openai", model="m", target=target, domains=("words",), base_url=url),
    )


async def fill(app: HafsApp, pilot: Pilot[None], url: str, name: str) -> Form[str]:
    await pilot.press("n")
    await until(lambda: isinstance(app.screen, Form), pilot)
    form = app.screen
    assert isinstance(form, Form)
    texts = list(form.query(Input))
    for place, text in enumerate((name, "m", "", url, "12")):
        texts[place].value = text
    form.query_one(Select).value = "openai"
    domains = form.query_one(SelectionList)
    domains.deselect_all()
    domains.select("words")
    return form


async def test_a_campaign_is_made_started_and_followed_to_its_end(app: HafsApp, ws: Workspace) -> None:
    write_domain(ws.home)
    async with OpenAIServer(reply=repeat) as server, app.run_test() as pilot:
        screen = await open_campaigns(app, pilot, 0)
        await fill(app, pilot, server.base_url, "pilot")
        await pilot.press("ctrl+s")
        await until(lambda: app.screen is screen, pilot)
        table = screen.query_one("#campaigns", Table)
        await until(lambda: "done" in shown(table) and "12/12" in shown(table), pilot)
        assert "12/12" in shown(screen.query_one("#domains"))
        await until(lambda: not app.background.runs("campaign pilot"), pilot)
        await pilot.press("enter")
        await until(lambda: isinstance(app.screen, ReviewScreen), pilot)
        review = app.screen
        assert isinstance(review, ReviewScreen)
        await until(lambda: review.queue.row_count == 12, pilot)


async def test_a_name_that_is_taken_is_told_in_the_form(app: HafsApp, ws: Workspace) -> None:
    await make(ws, "pilot", "http://127.0.0.1:9")
    async with app.run_test() as pilot:
        await open_campaigns(app, pilot, 1)
        form = await fill(app, pilot, "http://127.0.0.1:9", "pilot")
        await pilot.press("ctrl+s")
        bottom = form.query_one(".wrong-form")
        await until(lambda: "exists already" in str(bottom.render()), pilot)
        assert form.query(Input).first().value == "pilot"


async def test_pausing_and_cancelling_by_key(app: HafsApp, ws: Workspace) -> None:
    async with OpenAIServer(reply=repeat, script=always(Fault("hang"))) as server, app.run_test() as pilot:
        await make(ws, "pilot", server.base_url)
        screen = await open_campaigns(app, pilot, 1)
        table = screen.query_one("#campaigns", Table)
        await pilot.press("s")
        await until(lambda: "running" in shown(table), pilot)
        await pilot.press("p")
        await until(lambda: "pause" in shown(table), pilot)
        await app.background.stop("campaign pilot")
        await until(lambda: "paused" in shown(table), pilot)
        await pilot.press("X")
        await until(lambda: isinstance(app.screen, Confirm), pilot)
        await pilot.press("enter")
        assert (await progress_of(ws, "pilot")).campaign.state == "paused", "Enter alone cancelled it"
        await pilot.press("X")
        await until(lambda: isinstance(app.screen, Confirm), pilot)
        await pilot.press("y")
        await until(lambda: "cancelled" in shown(table), pilot)


async def test_quitting_asks_while_work_goes_on_and_pauses_it(ws: Workspace) -> None:
    async with OpenAIServer(reply=repeat, script=always(Fault("hang"))) as server:
        await make(ws, "pilot", server.base_url)
        async with Background() as background:
            app = HafsApp(ws, background)
            async with app.run_test() as pilot:
                screen = await open_campaigns(app, pilot, 1)
                await pilot.press("s")
                await until(lambda: "running" in shown(screen.query_one("#campaigns", Table)), pilot)
                await pilot.press("q")
                await until(lambda: isinstance(app.screen, Confirm), pilot)
                await pilot.press("escape")
                await until(lambda: app.screen is screen, pilot)
                await pilot.press("q")
                await until(lambda: isinstance(app.screen, Confirm), pilot)
                await pilot.press("y")
                await until(lambda: app.return_code == 0, pilot)
        assert (await progress_of(ws, "pilot")).campaign.state == "paused"


async def test_failures_are_shown_and_a_failed_campaign_says_why(app: HafsApp, ws: Workspace) -> None:
    async with OpenAIServer(script=always(status(401, message="no such key"))) as server:
        await make(ws, "pilot", server.base_url)
        async with app.run_test(notifications=True) as pilot:
            screen = await open_campaigns(app, pilot, 1)
            await pilot.press("s")
            await until(lambda: "failed" in shown(screen.query_one("#campaigns", Table)), pilot)
            await until(lambda: "no such key" in shown(screen.query_one("#failures", Table)), pilot)
            await until(lambda: "no such key" in shown(screen.query_one("#figures")), pilot)


async def test_a_campaign_of_another_process_is_followed(app: HafsApp, ws: Workspace) -> None:
    await make(ws, "pilot", "http://127.0.0.1:9")
    async with app.run_test() as pilot:
        screen = await open_campaigns(app, pilot, 1)
        campaign = (await campaigns.every(ws.db))[0]
        async with ws.db.transaction() as transaction:
            await campaigns.set_state(transaction, campaign.id, "running")
        for number in range(1, 4):
            async with ws.db.transaction() as transaction:
                await campaigns.count(transaction, campaign.id, "words", accepted=True)
            table = screen.query_one("#campaigns", Table)
            await until(lambda n=number, t=table: f"{n}/12" in shown(t), pilot)  # type: ignore[misc]
        await asyncio.sleep(0)


async def test_a_campaign_is_cloned_its_target_raised_and_its_priority_set(
    app: HafsApp, ws: Workspace
) -> None:
    await make(ws, "pilot", "http://127.0.0.1:9")
    async with app.run_test() as pilot:
        screen = await open_campaigns(app, pilot, 1)
        for key, text in (("c", "second"), ("t", "20"), ("o", "7")):
            await pilot.press(key)
            await until(lambda: isinstance(app.screen, Form), pilot)
            app.screen.query_one(Input).value = text
            await pilot.press("ctrl+s")
            await until(lambda: app.screen is screen, pilot)
        table = screen.query_one("#campaigns", Table)
        await until(lambda: "second" in shown(table) and "0/20" in shown(table), pilot)
    targets = {
        campaign.name: (campaign.target, campaign.priority) for campaign in await campaigns.every(ws.db)
    }
    assert sorted(targets) == ["pilot", "second"]
    assert sorted(targets.values()) in ([(12, 0), (20, 7)], [(12, 7), (20, 0)])


async def test_the_newest_routing_decision_is_shown_with_its_reason(app: HafsApp, ws: Workspace) -> None:
    write_domain(ws.home)
    async with OpenAIServer(reply=repeat) as server, app.run_test() as pilot:
        await create(
            ws,
            NewCampaign(
                "h", "openai", "m", 4, ("words",), base_url=server.base_url, local="ollama:small", parallel=1
            ),
        )
        screen = await open_campaigns(app, pilot, 1)
        await run_campaign(ws, "h", readings=lambda: None)
        await until(lambda: "no reading of the GPU" in shown(screen.query_one("#routing")), pilot)
