"""What supervised and preference fine-tuning share: arguments, events, stopping, resuming, `final/`."""

from __future__ import annotations

import json
import math
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backend.contract.events import Checkpoint, Done, Metrics, Started
from backend.contract.job import EXIT_FAILED
from backend.contract.options import to_values
from backend.contract.recipe import Recipe
from backend.worker.checkpoints import (
    checkpoint_folder,
    missing_parts,
    newest_complete,
    nonfinite_tensors,
    step_of,
)
from backend.worker.models import ModelSource, device, fingerprint
from backend.worker.run import Refused, Session, Stopped

RATIO_OF_RUN = 0.1
WARMUP_RATIO = 0.05

# TRL's names of what is logged, and ours. Everything else that it logs stays in its own trainer_state.json.
_LOGGED = {
    "loss": "loss",
    "eval_loss": "eval_loss",
    "learning_rate": "learning_rate",
    "grad_norm": "grad_norm",
    "mean_token_accuracy": "token_accuracy",
    "rewards/chosen": "rewards_chosen",
    "rewards/rejected": "rewards_rejected",
    "rewards/margins": "rewards_margin",
    "rewards/accuracies": "rewards_accuracy",
    "logps/chosen": "logps_chosen",
    "logps/rejected": "logps_rejected",
    "eval_rewards/margins": "eval_rewards_margin",
    "eval_rewards/accuracies": "eval_rewards_accuracy",
}


@dataclass(frozen=True, slots=True)
class Prepared:
    """What a trainer was made from, kept for `final/recipe.json`."""

    kind: str
    source: ModelSource
    data_sha256: str
    samples: int


def training_arguments(recipe: Recipe, has_eval: bool, bf16: bool) -> dict[str, Any]:
    """The arguments that TRL's SFTConfig and DPOConfig share. A fraction in a step count is of the run."""
    return {
        "output_dir": str(checkpoint_folder(recipe.output_dir)),
        "per_device_train_batch_size": recipe.batch_size,
        "per_device_eval_batch_size": recipe.batch_size,
        "gradient_accumulation_steps": recipe.gradient_accumulation_steps,
        "learning_rate": recipe.learning_rate,
        "lr_scheduler_type": recipe.lr_scheduler,
        "num_train_epochs": recipe.num_epochs,
        "max_steps": recipe.max_steps or -1,
        "warmup_steps": WARMUP_RATIO if recipe.warmup_steps < 0 else recipe.warmup_steps,
        "weight_decay": recipe.weight_decay,
        "max_grad_norm": recipe.max_grad_norm,
        "max_length": recipe.max_length,
        "fp16": recipe.fp16,
        "bf16": bf16,
        "use_cpu": device() == "cpu",
        "activation_checkpointing": recipe.gradient_checkpointing,
        "activation_checkpointing_kwargs": {"use_reentrant": False}
        if recipe.gradient_checkpointing
        else None,
        "optim": _optimizer(recipe),
        "seed": recipe.seed,
        "eval_strategy": "steps" if has_eval else "no",
        "eval_steps": recipe.eval_steps or RATIO_OF_RUN,
        "prediction_loss_only": True,
        "save_strategy": "steps",
        "save_steps": recipe.save_steps or RATIO_OF_RUN,
        "save_total_limit": recipe.save_total_limit,
        "logging_steps": recipe.logging_steps,
        "logging_first_step": True,
        # Its filter would replace a NaN by the mean of the losses before it.
        "logging_nan_inf_filter": False,
        "dataloader_pin_memory": device() == "cuda",
        "report_to": recipe.report_to,
        "disable_tqdm": True,
    }


def _optimizer(recipe: Recipe) -> str:
    """TRL's name of the optimizer. The 8-bit ones need a card: without one the plain one stands in."""
    if device() != "cuda":
        return "adamw_torch"
    if recipe.optim == "auto":
        return "paged_adamw_8bit" if recipe.load_in_4bit else "adamw_torch"
    return recipe.optim


def fresh_adapter(recipe: Recipe) -> Any:
    """The configuration of a new adapter."""
    from peft import LoraConfig

    targets = recipe.lora_targets
    return LoraConfig(
        r=recipe.lora_r,
        lora_alpha=recipe.lora_alpha,
        lora_dropout=recipe.lora_dropout,
        target_modules=targets if targets == "all-linear" else targets.split(","),
        use_rslora=recipe.use_rslora,
        use_dora=recipe.use_dora,
        task_type="CAUSAL_LM",
    )


def checkpoint_to_resume(recipe: Recipe, session: Session) -> Path | None:
    """The newest complete checkpoint when resuming, else None.

    Raises:
        Refused: a new run would mix its checkpoints with those of an earlier one.
    """
    folder = checkpoint_folder(recipe.output_dir)
    if not session.resume:
        if any(folder.glob("checkpoint-*")):
            raise Refused(
                "output_in_use",
                f"{folder} holds checkpoints of an earlier run",
                "resume it, or give another output_dir",
            )
        return None
    for checkpoint in sorted(folder.glob("checkpoint-*"), key=step_of, reverse=True):
        if missing := missing_parts(checkpoint):
            session.warn(
                "incomplete_checkpoint", f"{checkpoint.name} lacks {', '.join(missing)}", "passed over"
            )
    found = newest_complete(folder)
    if found is None:
        session.warn("nothing_to_resume", f"no complete checkpoint in {folder}", "starting from step 0")
    return found


def train(
    trainer: Any, recipe: Recipe, prepared: Prepared, session: Session, resume_from: Path | None
) -> Done:
    """Trains to the end, or to a stop signal, and writes `final/`.

    Raises:
        Stopped: a stop signal came; a checkpoint was written.
        Refused: the loss became NaN or infinite.
    """
    trainer.add_callback(event_callback(session))
    _announce(trainer, prepared, session, resume_from)
    session.can_save = session.resumable = True
    trainer.train(resume_from_checkpoint=str(resume_from) if resume_from else None)
    session.can_save = False
    state = trainer.state
    if session.stop_requested and state.global_step < state.max_steps:
        raise Stopped(True, f"stopped at step {state.global_step} of {state.max_steps}, checkpoint written")
    final = save_final(trainer, recipe, prepared)
    return Done(
        artifact=str(final),
        seconds=session.seconds(),
        step=state.global_step,
        loss=_last(state.log_history, "loss"),
        eval_loss=_last(state.log_history, "eval_loss"),
    )


def save_final(trainer: Any, recipe: Recipe, prepared: Prepared) -> Path:
    """Writes `final/`: adapter, tokenizer with its chat template, and `recipe.json`. Renamed into place."""
    final = Path(recipe.output_dir) / "final"
    beside = final.with_name("final.new")
    model = trainer.accelerator.unwrap_model(trainer.model)
    # A DPO run has a second adapter, the frozen reference: it is no part of the result.
    model.save_pretrained(str(beside), selected_adapters=["default"])
    trainer.processing_class.save_pretrained(str(beside))
    notes = {
        "kind": prepared.kind,
        "parameters": to_values(recipe),
        "base": prepared.source.base,
        "base_fingerprint": fingerprint(prepared.source.base),
        "data_sha256": prepared.data_sha256,
        "samples": prepared.samples,
        "steps": trainer.state.global_step,
    }
    (beside / "recipe.json").write_text(json.dumps(notes, indent=2, ensure_ascii=False) + "\n", "utf-8")
    if final.exists():
        final.rename(final.with_name(f"final.before-{os.getpid()}"))
    beside.rename(final)
    return final


def event_callback(session: Session) -> Any:
    """A trainer callback that tells each step and checkpoint, and stops the run when it is asked to.

    Made in a function because its base class is transformers' own, which is not imported before it is needed.
    """
    import torch
    from transformers import TrainerCallback

    clock = _StepClock()

    class EventCallback(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            clock.begin()

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            clock.end()
            if session.stop_requested:
                control.should_save = control.should_training_stop = True

        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **kwargs: Any) -> None:
            figures = {ours: float(logs[theirs]) for theirs, ours in _LOGGED.items() if theirs in logs}
            if not {"loss", "eval_loss"} & set(figures):
                return
            if "loss" in figures:
                figures |= clock.figures(logs.get("num_tokens"))
                if torch.cuda.is_available():
                    figures["peak_memory_mib"] = torch.cuda.max_memory_allocated() / 2**20
            session.events.emit(
                Metrics(step=state.global_step, total_steps=state.max_steps, epoch=state.epoch, **figures)
            )
            if not math.isfinite(figures.get("loss", 0.0)):
                raise Refused(
                    "diverged",
                    f"the loss became {figures['loss']} at step {state.global_step}",
                    "resume from a checkpoint before it with a lower learning_rate, and bf16 rather than fp16",
                    EXIT_FAILED,
                )

        def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            path = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            if bad := missing_parts(path) or nonfinite_tensors(path):
                session.warn("bad_checkpoint", f"{path.name} cannot be used: {', '.join(bad[:5])}")
                return
            session.events.emit(
                Checkpoint(
                    step=state.global_step,
                    path=str(path),
                    loss=_last(state.log_history, "loss"),
                    eval_loss=_last(state.log_history, "eval_loss"),
                )
            )

    return EventCallback()


class _StepClock:
    """Time and tokens of the optimizer steps since the last log, without evaluations and checkpoints."""

    def __init__(self) -> None:
        self._began = self._spent = 0.0
        self._steps = 0
        self._tokens = 0.0

    def begin(self) -> None:
        self._began = time.perf_counter()

    def end(self) -> None:
        self._spent += time.perf_counter() - self._began
        self._steps += 1

    def figures(self, total_tokens: float | None) -> dict[str, float]:
        """Seconds a step and tokens (prompt and answer) a second; empty before the first step's end."""
        if not self._steps or self._spent <= 0:
            return {}
        found = {"step_time_s": self._spent / self._steps}
        if total_tokens is not None:
            found["tokens_per_second"] = (total_tokens - self._tokens) / self._spent
            self._tokens = total_tokens
        self._spent, self._steps = 0.0, 0
        return found


def _announce(trainer: Any, prepared: Prepared, session: Session, resume_from: Path | None) -> None:
    arguments = trainer.args
    batches = len(trainer.get_train_dataloader())
    a_pass = max(1, math.ceil(batches / arguments.gradient_accumulation_steps))
    steps = arguments.max_steps if arguments.max_steps > 0 else math.ceil(a_pass * arguments.num_train_epochs)
    session.events.emit(
        Started(
            kind=prepared.kind,
            model=prepared.source.name,
            device=device(),
            total_steps=steps,
            train_samples=len(trainer.train_dataset),
            eval_samples=len(trainer.eval_dataset) if trainer.eval_dataset is not None else None,
            trainable_parameters=sum(p.numel() for p in trainer.model.parameters() if p.requires_grad),
            resumed_step=step_of(resume_from) if resume_from else None,
            load_seconds=session.seconds(),
        )
    )


def precision(recipe: Recipe, session: Session) -> tuple[Any, bool]:
    """(dtype of the base's weights, whether steps run in bf16). The base is frozen; an adapter stays in fp32.

    fp16 is taken as asked, with a warning where bf16 would work.
    """
    import torch

    from backend.worker.models import choose_dtype

    on_card = device() == "cuda"
    if recipe.fp16 and not on_card:
        raise Refused("no_fp16", "fp16 needs a card; this host has none", "leave fp16 out, or give bf16")
    if recipe.fp16 and torch.cuda.is_bf16_supported():
        session.warn("fp16", "fp16 was asked for and this card has bf16", "bf16 cannot overflow: give --bf16")
    dtype = choose_dtype(recipe.bf16, recipe.fp16)
    return dtype, dtype is torch.bfloat16


def _last(history: list[dict[str, float]], name: str) -> float | None:
    return next((entry[name] for entry in reversed(history) if name in entry), None)
