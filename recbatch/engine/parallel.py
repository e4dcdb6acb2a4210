"""A function in several processes that form one torch process group: Ray Train, for data-parallel training."""

from __future__ import annotations

import shutil
import signal
import threading
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from recbatch.engine import ray_local
from recbatch.engine.errors import NotEnoughResources

RESTARTS = 8  # of all workers, after one has died
POLL_S = 0.2

Work = Callable[[str], None]  # is given its device, "cpu" or "cuda:N"


def run_parallel(
    work: Work, *, workers: int, device: str, folder: Path, watch: Callable[[], None]
) -> str | None:
    """Call ``work`` in every worker until all have returned; where one dies, all begin again.

    The workers may run on other machines: ``work`` must be picklable, and ``folder`` theirs as well.

    Args:
        device: "cpu", "cuda" (a GPU each), or "auto": GPUs where Ray has enough of them.
        folder: Ray Train keeps its records below it while it runs.
        watch: called a few times a second in this thread.

    Returns:
        None where all is well, else why the workers could not be kept alive.

    Raises:
        NotEnoughResources: fewer GPUs than workers.
    """
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        owned = ray_local.connect(workers, gpus=workers if device.startswith("cuda") else 0)
    except NotEnoughResources:
        raise
    except Exception as error:
        return _sentence(error)
    try:
        if threading.current_thread() is threading.main_thread():
            for number, handler in handlers.items():  # Ray has set its own, which end the process
                signal.signal(number, handler)
        gpus = ray_local.load().cluster_resources().get("GPU", 0)
        trainer = _trainer(work, workers, gpu=device != "cpu" and gpus >= workers, folder=folder)
        return _fit(trainer, watch)
    finally:
        if owned:
            ray_local.disconnect()
        shutil.rmtree(folder / "ray", ignore_errors=True)


def _trainer(work: Work, workers: int, *, gpu: bool, folder: Path) -> Any:
    train, torch = import_module("ray.train"), import_module("ray.train.torch")
    return torch.TorchTrainer(
        _in_worker,
        train_loop_config={"work": work},
        torch_config=torch.TorchConfig(backend="nccl" if gpu else "gloo"),
        scaling_config=train.ScalingConfig(num_workers=workers, use_gpu=gpu),
        run_config=train.RunConfig(
            name="ray",
            storage_path=str(folder.resolve()),
            failure_config=train.FailureConfig(max_failures=RESTARTS),
        ),
    )


def _in_worker(config: dict[str, Work]) -> None:
    config["work"](str(import_module("ray.train.torch").get_device()))


def _fit(trainer: Any, watch: Callable[[], None]) -> str | None:
    """``trainer.fit`` in a thread: in the main one it would take over Ctrl-C, and end without a checkpoint."""
    failed: list[BaseException] = []

    def fit() -> None:
        try:
            trainer.fit()
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=fit, daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(POLL_S)
        watch()
    return _sentence(failed[0]) if failed else None


def _sentence(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
