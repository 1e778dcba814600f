"""Every action of the app, in one table: keymap, footer, help and command palette are made from it.

An action is data. Its identifier is `group.name`; a mode's screen (or the app, for the group `app`) has a
method `do_name` that performs it. What an action needs before it makes sense is a `Need`, whose text is
the reason that people read when they press the key of an action that is not possible now.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Need(Enum):
    """A condition of an action; the value is what to say when it does not hold."""

    CAMPAIGN = "no campaign is selected: make one with n"
    CAMPAIGN_RUNS = "this campaign is not running"
    CAMPAIGN_RESTS = "this campaign is running, or it is over"
    CAMPAIGN_STANDS = "pause this campaign first"
    CAMPAIGN_OPEN = "this campaign is over"
    SAMPLE = "no sample is selected: change the filter, or run a campaign"
    DATASET = "there is no dataset version: build one with d in Training"
    APPROVED = "no sample is approved yet: approve some in Review"
    RUN = "no run is selected"
    RUN_ACTIVE = "this run has ended"
    RUN_RESUMABLE = "only a run that stopped before its end can be resumed"
    RUN_DONE = "this run has no adapter yet"
    EVALUATION = "no evaluation is selected"
    TWO_EVALUATIONS = "a comparison needs two evaluations"
    COMPARISON = "no comparison is selected: make one with c"
    PAIR = "no pair is selected: generate some with n"
    MODEL = "there is no model yet: train one in Training"
    DEPLOYMENT = "no deployment is selected: make one with n"
    DEPLOYMENT_RUNS = "this deployment is not running"
    DEPLOYMENT_TALKS = "select a deployment that answers: serve a GGUF with n, or make an Ollama tag with o"
    ADAPTER = "only an adapter is merged: select one"
    REPLY = "there is no reply to rate: write with c"
    HOST = "no host is selected: add one with n"
    HOST_AWAY = "this machine is always there; only other hosts can be removed"
    JOB = "no job is selected"
    JOB_ACTIVE = "this job has ended"
    JOB_WAITS = "this job does not wait in the queue"


@dataclass(frozen=True, slots=True)
class Mode:
    """One of the app's modes: a screen of its own, opened by its digit or its letter."""

    id: str
    label: str
    short: str
    keys: str
    help: str


@dataclass(frozen=True, slots=True)
class Action:
    """One thing that a person can do, by a key, the palette, or not at all (with the reason)."""

    id: str
    key: str
    """Default keys, comma separated, in Textual's names (`a`, `ctrl+p`, `question_mark`)."""
    label: str
    help: str
    needs: tuple[Need, ...] = ()
    footer: bool = True

    @property
    def group(self) -> str:
        """`app`, or the mode that the action belongs to."""
        return self.id.partition(".")[0]

    @property
    def name(self) -> str:
        """The part of the identifier that names the method: `do_<name>`."""
        return self.id.partition(".")[2]


MODES = (
    Mode("overview", "Overview", "Overview", "1,O", "What runs now, what waits for you, what came out."),
    Mode(
        "campaigns", "Campaigns", "Campaigns", "2,C", "Generate samples: targets, progress, cost, failures."
    ),
    Mode("review", "Review", "Review", "3,R", "Approve, reject and edit samples by keyboard."),
    Mode("preferences", "Preferences", "Prefs", "4,P", "Candidates, pairs and their margins."),
    Mode("training", "Training", "Train", "5,T", "Dataset versions, runs and their live curves."),
    Mode("evaluation", "Evaluation", "Eval", "6,E", "Evaluations, comparisons and verdicts."),
    Mode("deploy", "Deploy", "Deploy", "7,D", "Serve a model, talk to it, roll it back."),
    Mode("hosts", "Hosts", "Hosts", "8,H", "Hosts, their jobs and their GPUs."),
)

_APP = (
    Action("app.help", "question_mark,f1", "Help", "Show every key, and why some do nothing now."),
    Action("app.palette", "ctrl+p", "Palette", "Find an action by its name."),
    Action("app.theme", "ctrl+t", "Theme", "Switch between the dark and the light theme.", footer=False),
    Action("app.refresh", "ctrl+r", "Refresh", "Read everything on this screen again.", footer=False),
    Action("app.quit", "q", "Quit", "Leave; campaigns of this app pause, jobs on hosts go on."),
)

_CAMPAIGNS = (
    Action("campaigns.new", "n", "New", "Make a campaign from a form."),
    Action(
        "campaigns.run",
        "s",
        "Start",
        "Run the selected campaign in this app.",
        (Need.CAMPAIGN, Need.CAMPAIGN_RESTS),
    ),
    Action(
        "campaigns.pause",
        "p",
        "Pause",
        "Finish the requests on their way, then stop.",
        (Need.CAMPAIGN, Need.CAMPAIGN_RUNS),
    ),
    Action(
        "campaigns.cancel",
        "X",
        "Cancel",
        "End the campaign for good; its samples stay.",
        (Need.CAMPAIGN, Need.CAMPAIGN_OPEN),
    ),
    Action(
        "campaigns.clone",
        "c",
        "Clone",
        "Make a campaign that asks what the selected one asks.",
        (Need.CAMPAIGN,),
        footer=False,
    ),
    Action(
        "campaigns.retarget",
        "t",
        "Target",
        "Raise the target; a campaign that is done can go on.",
        (Need.CAMPAIGN, Need.CAMPAIGN_STANDS),
        footer=False,
    ),
    Action(
        "campaigns.priority",
        "o",
        "Priority",
        "Say which campaign goes first where several share a provider.",
        (Need.CAMPAIGN,),
        footer=False,
    ),
    Action(
        "campaigns.review",
        "enter",
        "Review",
        "Review the samples of the selected campaign.",
        (Need.CAMPAIGN,),
    ),
)

_REVIEW = (
    Action("review.approve", "a", "Approve", "Approve this sample and go to the next.", (Need.SAMPLE,)),
    Action("review.reject", "x", "Reject", "Reject this sample and go to the next.", (Need.SAMPLE,)),
    Action("review.edit", "e", "Edit", "Edit the answer; the original stays as a revision.", (Need.SAMPLE,)),
    Action("review.skip", "space", "Skip", "Leave this sample for later and go to the next.", (Need.SAMPLE,)),
    Action("review.flag", "f", "Flag", "Mark this sample for another look.", (Need.SAMPLE,)),
    Action(
        "review.reason",
        "X",
        "Reject, why",
        "Reject this sample for a reason, by its digit.",
        (Need.SAMPLE,),
        footer=False,
    ),
    Action("review.rate", "r", "Rate", "Rate this sample: r, then 1 to 5.", (Need.SAMPLE,), footer=False),
    Action(
        "review.edit_outside",
        "ctrl+e",
        "Edit outside",
        "Edit the answer in $VISUAL or $EDITOR.",
        (Need.SAMPLE,),
        footer=False,
    ),
    Action(
        "review.copy",
        "c",
        "Copy",
        "Copy the answer to your terminal's clipboard (OSC 52).",
        (Need.SAMPLE,),
        footer=False,
    ),
    Action("review.bulk", "A", "All of these", "Approve or reject all that the filter shows.", footer=False),
    Action("review.undo_bulk", "ctrl+u", "Undo all", "Take the last such decision back.", footer=False),
    Action("review.wrap", "w", "Wrap", "Break long lines of the card, or leave them whole.", footer=False),
    Action("review.guidelines", "i", "Guidelines", "Read what samples are judged by.", footer=False),
    Action("review.undo", "u,backspace", "Undo", "Take your last decision back, also one of another day."),
    Action("review.redo", "U,ctrl+y", "Redo", "Bring back what you undid last.", footer=False),
    Action("review.filter", "slash", "Filter", "Filter by text, campaign, domain, state and score."),
    Action("review.clear", "escape", "Pending", "Show everything that is pending.", footer=False),
)

_TRAINING = (
    Action("training.sft", "n", "Train", "Launch supervised fine-tuning from a form.", (Need.DATASET,)),
    Action("training.dpo", "p", "DPO", "Launch preference fine-tuning from a form."),
    Action("training.dataset", "d", "Dataset", "Freeze approved samples as a version.", (Need.APPROVED,)),
    Action("training.log", "l", "Log", "Follow what the selected run writes.", (Need.RUN, Need.JOB)),
    Action(
        "training.cancel",
        "x",
        "Stop",
        "Stop the run; it can be resumed.",
        (Need.RUN, Need.JOB, Need.RUN_ACTIVE),
    ),
    Action(
        "training.resume",
        "r",
        "Resume",
        "Go on from the newest complete checkpoint.",
        (Need.RUN, Need.RUN_RESUMABLE),
    ),
    Action("training.next_figure", "m", "Figure", "Draw the next figure of the run.", (Need.RUN,)),
    Action(
        "training.previous_figure", "M", "Figure back", "Draw the previous figure.", (Need.RUN,), footer=False
    ),
    Action(
        "training.check", "c", "Check", "Look for leaks in a dataset version.", (Need.DATASET,), footer=False
    ),
    Action("training.import", "i", "Import", "Read a folder or file as a version.", footer=False),
    Action("training.export", "e", "Export", "Write a version as files.", (Need.DATASET,), footer=False),
    Action("training.base", "b", "Base", "Make a trainable base model from a GGUF.", footer=False),
)

_EVALUATION = (
    Action("evaluation.run", "n", "Evaluate", "Run benchmarks on a model from a form."),
    Action(
        "evaluation.compare", "c", "Compare", "Compare two evaluations item by item.", (Need.TWO_EVALUATIONS,)
    ),
    Action("evaluation.report", "o", "Report", "Read the report of the comparison.", (Need.COMPARISON,)),
)

_DEPLOY = (
    Action("deploy.serve", "n", "Serve", "Serve a model as GGUF from this app, on loopback."),
    Action(
        "deploy.chat",
        "c",
        "Chat",
        "Write to the selected deployment.",
        (Need.DEPLOYMENT, Need.DEPLOYMENT_TALKS),
    ),
    Action("deploy.folder", "f", "Folder", "Write a merged Hugging Face folder."),
    Action("deploy.ollama", "o", "Ollama", "Create a tag on an Ollama server."),
    Action("deploy.vllm", "l", "vLLM", "Serve a model by a host's vLLM.", footer=False),
    Action("deploy.stop", "x", "Stop", "Stop the deployment.", (Need.DEPLOYMENT, Need.DEPLOYMENT_RUNS)),
    Action(
        "deploy.rollback", "r", "Rollback", "Bring the version before back.", (Need.DEPLOYMENT,), footer=False
    ),
    Action(
        "deploy.merge",
        "m",
        "Merge",
        "Merge the adapter into its base.",
        (Need.MODEL, Need.ADAPTER),
        footer=False,
    ),
    Action(
        "deploy.convert", "v", "GGUF", "Convert the model into one GGUF file.", (Need.MODEL,), footer=False
    ),
    Action(
        "deploy.good", "plus,f2", "Good reply", "Rate the last reply as good.", (Need.REPLY,), footer=False
    ),
    Action("deploy.bad", "minus,f3", "Bad reply", "Rate the last reply as bad.", (Need.REPLY,), footer=False),
    Action(
        "deploy.leave", "escape", "Leave the chat", "Back from the chat to the deployments.", footer=False
    ),
)

_HOSTS = (
    Action("hosts.add", "n", "Add", "Add a host that is reached by SSH."),
    Action("hosts.probe", "p", "Probe", "Ask the host what it is and what it has.", (Need.HOST,)),
    Action("hosts.command", "c", "Command", "Launch any command as a job.", (Need.HOST,)),
    Action("hosts.log", "l", "Log", "Follow what the job writes.", (Need.JOB,)),
    Action("hosts.sooner", "K", "Sooner", "Move the job up in its host's queue.", (Need.JOB, Need.JOB_WAITS)),
    Action("hosts.later", "J", "Later", "Move the job down in its host's queue.", (Need.JOB, Need.JOB_WAITS)),
    Action("hosts.cancel", "x", "Stop", "Stop the job and all that it started.", (Need.JOB, Need.JOB_ACTIVE)),
    Action(
        "hosts.remove",
        "X",
        "Remove",
        "Take the host out of hosts.toml.",
        (Need.HOST, Need.HOST_AWAY),
        footer=False,
    ),
)

_PREFERENCES = (
    Action("preferences.left", "h,left", "Left", "The left answer is better.", (Need.PAIR,)),
    Action("preferences.right", "l,right", "Right", "The right answer is better.", (Need.PAIR,)),
    Action("preferences.tie", "t", "Tie", "Neither is better.", (Need.PAIR,)),
    Action("preferences.bad", "b", "Bad", "Neither should be learnt from.", (Need.PAIR,)),
    Action("preferences.undo", "u,backspace", "Undo", "Take your last choice back."),
    Action("preferences.generate", "n", "Generate", "Ask a model for candidates and pair them."),
    Action("preferences.skip", "space", "Skip", "Leave this pair for later.", (Need.PAIR,), footer=False),
    Action("preferences.export", "e", "Export", "Write pairs in TRL's format.", footer=False),
    Action("preferences.import", "i", "Import", "Read pairs of a file.", footer=False),
    Action("preferences.filter", "slash", "Filter", "Show pairs of a state and a batch.", footer=False),
    Action("preferences.clear", "escape", "Pending", "Show every pair that waits.", footer=False),
)

ACTIONS: tuple[Action, ...] = (
    *_APP,
    *_CAMPAIGNS,
    *_REVIEW,
    *_PREFERENCES,
    *_TRAINING,
    *_EVALUATION,
    *_DEPLOY,
    *_HOSTS,
)
BY_ID: dict[str, Action] = {action.id: action for action in ACTIONS}


def of_group(group: str) -> tuple[Action, ...]:
    """The actions of a mode, or of the app, in the order in which the footer shows them."""
    return tuple(action for action in ACTIONS if action.group == group)


def unmet(action: Action, holds: set[Need] | frozenset[Need]) -> Need | None:
    """The first need of `action` that does not hold, or None when it is possible now."""
    return next((need for need in action.needs if need not in holds), None)
