"""Compute the figures, tables and verdicts of docs/results.md and docs/results/*.md from runs.

    python docs/results.py                 from docs/results/*.jsonl.xz, as they are
    python docs/results.py --record RUN... first take the runs below some folders into those files

A recorded run replaces one of the same id; nothing is left out by its result. Its rows are kept as
they are; of its singular values 20 looks are kept, of its histograms 5. Each table stands in a
page between `<!-- NAME -->` and `<!-- end -->`, and only what is between them is written. The
sentences are compared with the records, and what they have to say instead is printed. A run is
named, too, if its claims file had another text when it began than the one that judges it.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from janus_pl.records.archive import SUFFIX, read_archive, write_archive
from janus_pl.records.parts import Part, in_turn
from janus_pl.records.read import read, read_parts
from janus_pl.records.run import Run
from janus_pl.report.figures import draw
from janus_pl.verify.lines import to_json

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import results_figures  # noqa: E402  beside this file
import results_said_confirm  # noqa: E402
import results_said_controls  # noqa: E402
import results_said_deep  # noqa: E402
import results_said_dose  # noqa: E402
import results_said_edge  # noqa: E402
import results_said_figures  # noqa: E402
import results_said_gd  # noqa: E402
import results_said_predictions  # noqa: E402
import results_said_short  # noqa: E402
import results_scale  # noqa: E402
import results_tables  # noqa: E402
from results_judged import BEFORE, judged  # noqa: E402
from results_sentences import check, unchecked  # noqa: E402

RECORDED = HERE / "results"
VERDICTS = "verdicts.json"
SENTENCES = [
    *results_said_short.SENTENCES,
    *results_said_deep.SENTENCES,
    *results_said_figures.SENTENCES,
    *results_said_predictions.SENTENCES,
    *results_said_controls.SENTENCES,
    *results_said_confirm.SENTENCES,
    *results_said_edge.SENTENCES,
    *results_said_dose.SENTENCES,
    *results_said_gd.SENTENCES,
]
LOOKS, HISTOGRAMS = 20, 5  # of a recorded run
# The claims of confirm.yaml that a page shows, by page.
CONFIRMED = {
    "figure-1": ("mean", "spread"),
    "figure-2b": ("gd_spread",),
    "figure-4": ("rank", "rank_two"),
    "figure-5": ("cross_entropy", "cross_entropy_velocity"),
    "constant-rate": ("noise_constant", "spread_constant", "rank_constant"),
    "decay-on-rho": ("rho_spread", "rho_velocity", "rho_rank"),
}


def main(args: Sequence[str] | None = None) -> int:
    """Record, draw, write; returns 0, or 1 if the page says what the records do not."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], allow_abbrev=False)
    parser.add_argument("--record", nargs="+", metavar="RUN", help="folders of runs to take over")
    options = parser.parse_args(args)
    if options.record:
        record(options.record, RECORDED)
    runs = read([RECORDED]).runs
    captions = draw_all(runs, RECORDED)
    (RECORDED / VERDICTS).write_text(verdicts_json(runs), encoding="utf-8")
    texts = tables(runs) | captions_of(captions)
    for path in pages():
        path.write_text(filled(path.read_text(encoding="utf-8"), texts), encoding="utf-8")
    print(f"{len(runs)} runs; {', '.join(captions)}; {VERDICTS}; {len(pages())} pages")
    said = all_pages()
    found = results_scale.mismatches(runs) + check(said, runs, SENTENCES)
    if not found:
        found = [f"in no sentence: {where}" for where in unchecked(said, runs, SENTENCES)]
    for wrong in found:
        print(f"results: {wrong}", file=sys.stderr)
    return 1 if found else 0


def pages() -> list[Path]:
    """The pages: the first, and one for each figure, control or theorem."""
    return [HERE / "results.md", *sorted(RECORDED.glob("*.md"))]


def all_pages() -> str:
    """The text of all pages."""
    return "\n".join(path.read_text(encoding="utf-8") for path in pages())


def record(folders: Sequence[str], target: Path) -> None:
    """Take runs over into one file for each sweep, that of their first tag.

    Runs that are under way or were interrupted wait for their end; what is wrong with others is
    said.
    """
    by_sweep: dict[str, dict[str, list[Part]]] = {}
    for path in sorted(target.glob(f"*{SUFFIX}")):
        known = by_sweep.setdefault(path.name.removesuffix(SUFFIX), {})
        for kept_part in read_archive(path):
            known.setdefault(kept_part.id, []).append(kept_part)
    new: dict[str, list[Part]] = {}
    for part in read_parts(folders):
        if isinstance(part, Part):
            new.setdefault(part.id, []).append(part)
        else:
            print(f"left out: {part.path}: {part.reason}", file=sys.stderr)
    for run, parts in new.items():
        last = in_turn(parts)[-1]
        if last.broken_off:
            continue
        sweep = (last.config.get("tags") or ["single"])[0]
        by_sweep.setdefault(sweep, {})[run] = [thinned(part) for part in parts]
    for sweep, kept in by_sweep.items():
        write_archive(target / f"{sweep}{SUFFIX}", [p for parts in kept.values() for p in parts])


def thinned(part: Part) -> Part:
    """A record with some of its histograms and singular values: the first, the last, and evenly.

    What is recorded already stays as it is.
    """
    if part.path.name.endswith(SUFFIX):
        return part
    with_histograms = [
        place
        for place, item in enumerate(part.items)
        if any(key.endswith("._type") for key in item)
    ]
    kept = {with_histograms[k] for k in evenly(len(with_histograms), HISTOGRAMS)}
    items = [
        item if place in kept else {key: value for key, value in item.items() if "." not in key}
        for place, item in enumerate(part.items)
    ]
    looks = [part.spectra[k] for k in evenly(len(part.spectra), LOOKS)]
    return part._replace(items=items, spectra=looks)


def evenly(count: int, most: int) -> list[int]:
    """Places of at most so many of some things, the first and the last among them.

    >>> evenly(3, 5), evenly(11, 3)
    ([0, 1, 2], [0, 5, 10])
    """
    if count <= most:
        return list(range(count))
    return [round(k * (count - 1) / (most - 1)) for k in range(most)]


def draw_all(runs: Sequence[Run], folder: Path) -> dict[str, str]:
    """The paper's figures that the runs allow, and ours; returns their captions by name.

    A caption says how to read a picture, and is empty for ours, which have theirs on the pages.
    The runs of new seeds, of dose and response, and of GD at as many steps have tables and pictures
    of their own, and are in no picture of the others.
    """
    apart = (*results_tables.CONFIRM, *results_tables.DOSE, *results_tables.GD)
    new = {run.id for run in results_tables.of_sweeps(runs, *apart)}
    with tempfile.TemporaryDirectory() as scratch:
        figures = draw([run for run in runs if run.id not in new], Path(scratch))
        paper = [figure for figure in figures if figure.files]
        for figure in figures:  # one that is now missing, or another's, is there no longer
            (folder / f"{figure.key}.png").unlink(missing_ok=True)
        for figure in paper:
            shutil.copy(Path(scratch) / f"{figure.key}.png", folder)
    said = {figure.key: figure.caption.partition("\n")[0] for figure in paper}
    said = {figure.key: said[figure.key].removeprefix(f"{figure.title}. ") for figure in paper}
    return said | dict.fromkeys(results_figures.draw(runs, folder), "")


def captions_of(said: Mapping[str, str]) -> dict[str, str]:
    """The captions in Markdown, by the name of their place."""
    return {f"caption_{key}": f"*{caption}*" for key, caption in said.items() if caption}


def verdicts_json(runs: Sequence[Run]) -> str:
    """What `verify --json` writes."""
    return json.dumps(to_json(judged(runs)), indent=2) + "\n"


def tables(runs: Sequence[Run]) -> dict[str, str]:
    """Every table of the pages in Markdown, by the name of its place."""
    by_file = {name: judged(runs, name) for name in BEFORE}
    found = {"verdicts": results_tables.of_verdicts(judged(runs))}
    for name, verdicts in by_file.items():
        found[f"{name}_verdicts"] = results_tables.of_verdicts(verdicts, claims_alone=True)
    for page, names in CONFIRMED.items():
        found[f"confirm_{page.replace('-', '_')}"] = results_tables.of_some(
            by_file["confirm"], *names
        )
    return found | results_scale.lines(runs) | results_tables.of_runs(runs)


def filled(page: str, texts: Mapping[str, str]) -> str:
    """The page with its tables.

    Raises:
        KeyError: a place on the page without a table.
    """

    def one(match: re.Match[str]) -> str:
        return f"<!-- {match[1]} -->\n\n{texts[match[1]]}\n\n<!-- end -->"

    return re.sub(r"<!-- ([a-z0-9_]+) -->\n.*?<!-- end -->", one, page, flags=re.DOTALL)


if __name__ == "__main__":
    sys.exit(main())
