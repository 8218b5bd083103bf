"""`make quickstart`: SGD and GD on the embedded data, side by side in a table and in figures.

Both runs take `quickstart.yaml`; the second sets `data.batch_size: full`. Their epochs are equal,
so GD takes fewer steps.
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from janus_pl.cli import subcommands
from janus_pl.cli.lightning_cli import JanusCLI
from janus_pl.cli.streams import lasting_streams
from janus_pl.run.logger import RunLogger, finish

RUNS = {"SGD": "32", "GD": "full"}
REPORT = "report-quickstart"
LAYERS = ("conv1", "conv2", "conv3", "conv4", "fc1", "fc2")
ROWS = {
    "steps": "trainer/global_step",
    "training loss": "train/loss",
    "training error": "train/error",
    "test error": "val/error",
    "margin, mean": "margin/mean",
    "margin, std": "margin/std",
    **{f"||V_k dot||, {layer}": f"velocity/{layer}" for layer in LAYERS},
    **{f"effective rank, {layer}": f"effective_rank/{layer}" for layer in LAYERS},
}


@lasting_streams()
def main(extra: Sequence[str] = ()) -> int:
    """Train both runs, print the comparison, draw the figures, and say where all files are.

    Args:
        extra: Further arguments for both runs, as on the command line.
    """
    runs = {name: train(name, batch_size, extra) for name, batch_size in RUNS.items()}
    finals = {name: final for name, (final, _) in runs.items()}
    table = Table(title="Same network, data and epochs; minibatches of 32 against the full batch")
    table.add_column("at the last epoch")
    for name in RUNS:
        table.add_column(name, justify="right")
    for label, key in ROWS.items():
        table.add_row(label, *(_shown(final.get(key)) for final in finals.values()))
    Console().print(table)
    return subcommands.main(["report", *(folder for _, folder in runs.values()), "--out", REPORT])


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def train(name: str, batch_size: str, extra: Sequence[str] = ()) -> tuple[dict[str, float], str]:
    """Train one run; return the last number of each key, and the run's folder."""
    args = ["fit", "--config", "quickstart.yaml", "--name", f"quickstart-{name.lower()}"]
    args += ["--trainer.enable_model_summary", "false"]
    cli = JanusCLI([*args, "--data.batch_size", batch_size, *extra])
    finish()
    logger = cli.trainer.logger
    assert isinstance(logger, RunLogger)
    final = {key: float(value) for key, value in cli.trainer.callback_metrics.items()}
    return final, str(logger.folder)


if __name__ == "__main__":
    raise SystemExit(main())
