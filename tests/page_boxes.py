"""The boxes of the pages, and a module of somebody else's that their commands train."""

from __future__ import annotations

import re
import shlex
from typing import NamedTuple

from conftest import ROOT

DOCS = ROOT / "docs"
PAGES = [
    "README.md",
    *sorted(
        path.relative_to(ROOT).as_posix()
        for folder in (DOCS, DOCS / "results")
        for path in folder.glob("*.md")
    ),
]
BOX = re.compile(r"(?:<!-- needs: ([^>]+) -->\n)?```bash\n(.*?)```", re.DOTALL)
CODE = re.compile(r"```(\w+)\n(.*?)```", re.DOTALL)
MINE = """
import torch
from lightning.pytorch import LightningDataModule, LightningModule
from torch.utils.data import DataLoader, TensorDataset


class Module(LightningModule):
    def __init__(self):
        super().__init__()
        self.first, self.last = torch.nn.Linear(6, 5), torch.nn.Linear(5, 2)

    def forward(self, x):
        return self.last(torch.relu(self.first(x)))

    def training_step(self, batch, batch_idx):
        return torch.nn.functional.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Data(LightningDataModule):
    def train_dataloader(self):
        x = torch.randn(12, 6, generator=torch.Generator().manual_seed(0))
        return DataLoader(TensorDataset(x, torch.arange(12) % 2), batch_size=4)
"""


class Box(NamedTuple):
    """A box of commands, and what it needs beyond a test; None for nothing."""

    needs: str | None
    commands: list[str]


def boxes(page: str) -> list[Box]:
    """The boxes of a page, their lines joined where they go on."""
    return [
        Box(needs or None, [line for line in re.sub(r"\s*\\\n\s*", " ", text).splitlines() if line])
        for needs, text in BOX.findall((ROOT / page).read_text(encoding="utf-8"))
    ]


def words_of(command: str) -> list[str]:
    """The words of a command, without its comment."""
    return shlex.split(command, comments=True)


def snippets(page: str, language: str) -> list[str]:
    """The boxes of a page in a language, as they stand there."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return [code for kind, code in CODE.findall(text) if kind == language]
