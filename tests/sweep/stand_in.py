"""Stands in for `python -m janus_pl` in tests of a sweep: a run without numbers.

It keeps a run's contract with the sweep: the lock, config.yaml, rows.jsonl, outcome.json, SIGTERM,
exit codes. What it does is told by `behaviour.json` in the working directory, by `data.seed`; every
epoch that it makes is a line of `ledger`.
"""

import fcntl
import json
import os
import signal
import sys
import time
from pathlib import Path

EPOCHS = 6
FINAL = (0, 3, 5)  # exit codes of janus_pl.errors
stop: list[int] = []


def main() -> int:
    signal.signal(signal.SIGTERM, lambda signum, frame: stop.append(signum))
    values = json.loads(Path(sys.argv[sys.argv.index("--config", 3) + 1]).read_text())
    told = json.loads(Path("behaviour.json").read_text()).get(str(values["data.seed"]), {})
    run_id = os.environ["WANDB_RUN_ID"]
    folder = Path("runs/janus_pl") / run_id
    folder.mkdir(parents=True, exist_ok=True)
    lock = (folder / ".lock").open("a")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        print("error: another process is at work there")
        return 2
    if (outcome := folder / "outcome.json").exists():
        if json.loads(outcome.read_text())["exit_code"] in FINAL:
            print("error: the run has ended")  # by another process, since the sweep has looked
            return 2
        outcome.unlink()
    (folder / "config.yaml").write_text("model: {}\n")
    code = train(folder, run_id, told)
    if code >= 0:
        (folder / "outcome.json").write_text(json.dumps({"exit_code": code}))
    return code


def train(folder: Path, run_id: str, told: dict) -> int:
    state = folder / "state"
    begin = int(state.read_text()) if state.is_file() else 0
    environment = {k: os.environ.get(k) for k in ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES")}
    forked = "janus_pl.sweep.forking" in sys.orig_argv
    note({"id": run_id, "start": begin, "forked": forked, **environment})
    patience = time.monotonic() + 60  # where the others never start, the test is to say so
    while lines("start") < told.get("together", 0) and time.monotonic() < patience:
        time.sleep(0.02)
    for epoch in range(begin + 1, EPOCHS + 1):
        if epoch == told.get("at", 3) and "signal" in told:
            os.kill(os.getpid(), told["signal"])
        if epoch == told.get("at", 3) and "code" in told:
            print(told.get("says", "error: trouble"))
            return told["code"]
        if epoch == told.get("at", 3) and "leaves" in told:
            os._exit(told["leaves"])
        if epoch == told.get("at", 3) and "imports" in told:
            __import__(told["imports"])
        time.sleep(told.get("pace", 0.02))
        with (folder / "rows.jsonl").open("a" if epoch > 1 else "w") as rows:
            rows.write(json.dumps({"epoch": epoch, "train/loss": 1 / epoch}) + "\n")
        state.write_text(str(epoch))
        note({"id": run_id, "epoch": epoch})
        while "until_told" in told and not stop and lines("epoch") >= told["until_told"]:
            time.sleep(0.02)  # until the test has sent its signal, however long that takes
        while told.get("deaf") and stop:
            time.sleep(0.02)  # until it is killed
        if stop and epoch < EPOCHS:
            return 143
    note({"id": run_id, "end": EPOCHS})
    return 0


def lines(key: str) -> int:
    return sum(f'"{key}"' in line for line in Path("ledger").read_text().splitlines())


def note(entry: dict) -> None:
    with Path("ledger").open("a") as file:
        file.write(json.dumps({**entry, "time": time.time()}) + "\n")


if __name__ == "__main__":
    sys.exit(main())
