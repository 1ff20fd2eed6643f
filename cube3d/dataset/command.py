"""``cube3d data build | inspect | split``: what is in the pairs, what is kept of them, and where it goes."""

from __future__ import annotations

import argparse
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cube3d.config import load_section, load_settings
from cube3d.dataset.write import record, save_pairs, save_records
from cube3d.errors import UserError
from cube3d.pairs import BUNDLED, Pair, answer_groups, read_pairs

if TYPE_CHECKING:
    from cube3d.dataset.build import Built

EXAMPLES = 2
"""Pairs that are shown of a kind."""


def add_commands(commands: Any) -> None:
    """Adds ``data`` and its three commands to the parser's."""
    data = commands.add_parser("data", help="build, inspect and split pairs").add_subparsers(
        required=True, metavar="build | inspect | split"
    )
    for name, help_text, command in (
        ("build", "keep the pairs that are worth training on; JSONL that `train` reads", _build),
        ("inspect", "show what is in the pairs, and what `build` would keep and drop; writes nothing", _inspect),
    ):
        parser = data.add_parser(name, help=help_text)
        parser.add_argument("sources", nargs="*", default=[BUNDLED], help=f"files, docs:<module>; {BUNDLED} without")
        parser.add_argument("--config", type=Path, help="YAML file; the defaults without")
        parser.add_argument(
            "--set", action="append", default=[], metavar="key=value", help="such as quality.near_duplicate=0.9"
        )
        if name == "build":
            parser.add_argument("--out", type=Path, required=True, help="file.jsonl; file.dropped.jsonl goes beside it")
        parser.set_defaults(command=command)

    split = data.add_parser("split", help="write the parts that `train` would make of the same configuration")
    split.add_argument("--config", type=Path, help="YAML file of a run; the defaults without")
    split.add_argument("--out", type=Path, required=True, help="folder of train.jsonl, validation.jsonl, test.jsonl")
    split.add_argument("overrides", nargs="*", metavar="section.key=value", help="such as data.test=0.3")
    split.set_defaults(command=_split)


def _built(options: argparse.Namespace) -> tuple[list[Pair], Built]:
    from cube3d.dataset.build import BuildSettings, build
    from cube3d.teachers import embed, open_teacher

    settings = load_section(BuildSettings, options.config, options.set)
    pairs = read_pairs(options.sources, settings.context)
    judges = [partial(embed, open_teacher(teacher)) for teacher in settings.teachers]
    return pairs, build(pairs, settings, judges)


def _build(options: argparse.Namespace) -> None:
    dropped_file = options.out.with_suffix(".dropped.jsonl")
    _require_jsonl(options.out)
    pairs, built = _built(options)
    save_pairs(options.out, built.kept)
    reasons = [{"reason": each.reason, "detail": each.detail, **record(each.pair)} for each in built.dropped]
    save_records(dropped_file, reasons)
    print("\n".join([*_summary(pairs, built), f"kept: {options.out}; dropped: {dropped_file}"]))


def _require_jsonl(path: Path) -> None:
    if path.suffix != ".jsonl":
        raise UserError(f"--out {path}: a build writes JSONL; name it {path.with_suffix('.jsonl')}")


def _inspect(options: argparse.Namespace) -> None:
    pairs, built = _built(options)
    print("\n".join([*_contents(pairs), "", *_summary(pairs, built), "", *_best_and_worst(built.kept)]))


def _split(options: argparse.Namespace) -> None:
    from cube3d.dataset.prepare import prepare

    prepared = prepare(load_settings(options.config, options.overrides))
    for name, rows in vars(prepared.split).items():
        part = [prepared.pairs[i] for i in rows]
        file = options.out / f"{name}.jsonl"
        save_pairs(file, part)
        groups = len({prepared.groups[i] for i in rows})
        domains = ", ".join(f"{domain or 'no domain'} {n}" for domain, n in _counted(pair.domain for pair in part))
        print(f"{name:<10} {len(part):6} pairs, {groups:6} answer groups ({domains}): {file}")


def _counted(values: Iterator[str]) -> list[tuple[str, int]]:
    return sorted(Counter(values).items())


def _contents(pairs: Sequence[Pair]) -> Iterator[str]:
    groups = answer_groups(pairs)
    dialogues = {pair.dialogue for pair in pairs if pair.dialogue}
    yield f"{len(pairs)} pairs, {len(set(groups))} answer groups, {len(dialogues)} conversations"
    for domain, count in _counted(pair.domain for pair in pairs):
        yield f"  {count:6}  {domain or 'no domain'}"
    for side in ("question", "answer"):
        lengths = sorted(len(getattr(pair, side)) for pair in pairs)
        low, middle, high = (lengths[round(q * (len(lengths) - 1))] for q in (0.05, 0.5, 0.95))
        yield f"characters of the {side}s: {low} to {high} (5 % to 95 %), median {middle}"


def _summary(pairs: Sequence[Pair], built: Built) -> Iterator[str]:
    groups = len(set(answer_groups(built.kept)))
    yield f"{len(pairs)} pairs read, {len(built.kept)} kept in {groups} answer groups, {len(built.dropped)} dropped"
    examples: dict[str, list[Pair]] = defaultdict(list)
    for dropped in built.dropped:
        examples[dropped.reason].append(dropped.pair)
    for reason, count in built.reasons().most_common():
        yield f"  {count:6}  {reason}"
        yield from (f"            {_short(pair)}" for pair in examples[reason][:EXAMPLES])


def _best_and_worst(kept: Sequence[Pair]) -> Iterator[str]:
    ordered = sorted(kept, key=lambda pair: pair.score or 0.0)
    for title, shown in (("lowest scores", ordered[:EXAMPLES]), ("highest scores", ordered[: -EXAMPLES - 1 : -1])):
        yield f"{title} of what is kept:"
        yield from (f"  {pair.score:.2f}  {_short(pair)}" for pair in shown)


def _short(pair: Pair) -> str:
    """The pair on one line."""
    sides = (" ".join(text.split()) for text in (pair.question, pair.answer))
    question, answer = (side if len(side) <= 60 else side[:59] + "…" for side in sides)
    return f"{pair.source}  {question} | {answer}"
