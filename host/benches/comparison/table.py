"""What was measured, as a document: which goals are met, which are not and why, and all rows."""

import re
import statistics
from pathlib import Path

from comparison.rows import BUFFERED, DISTURBING, DURABILITY, EVERYBODY, FLOOR, FSYNC, GROUPS, MOSQUITTO, NONE, ONE_WORKER, OURS
from comparison.rows import TWO_WORKERS, WORKERS

# Who is ours among those that are compared.
OURS_OF = {EVERYBODY: OURS, WORKERS: TWO_WORKERS, DURABILITY: BUFFERED}

# What is known of the rows that are short of their goals.
BOUNDS = Path(__file__).resolve().parents[1] / "bounds.md"

# The part of the time that other programs may have, or keep the load from running for, before latency is theirs.
QUIET = 0.03

BOTTLENECK = "the load was the bottleneck"


# What a row found.


def values(row, results, broker):
    """Of all rounds; `results` are lists of what `host bench` said, by load and broker."""
    if row.of_rows:
        pairs = zip(*(values(of, results, broker) for of in row.of_rows))
        return [row.value(*pair) for pair in pairs]
    found = []
    for result in results.get(row.load, {}).get(broker, []):
        try:
            found.append(row.value(result))
        except (KeyError, TypeError, StopIteration):
            pass  # It failed, or the broker was gone before its memory was looked at.
    return [value for value in found if value is not None]


def median(row, results, broker):
    found = values(row, results, broker)
    return statistics.median(found) if found else None


def ratio(row, results, to):
    """Ours, compared with the least of the others."""
    ours = median(row, results, OURS_OF[row.load.about])
    others = [value for value in (median(row, results, other) for other in to) if value]
    return ours / min(others) if ours is not None and others else None


def faults(broker, result):
    """What has to be known to read the figures. The floor acknowledges nothing, and nobody expects it to."""
    if "failed" in result:
        return [f"failed: {result['failed']}"]
    check = result["check"]
    names = ["lost", "duplicated", "out_of_order", "foreign", "refused", "connections_closed"]
    names += ["unacknowledged"] if broker != FLOOR else []
    noted = [f"{check[name]} {name.replace('_', ' ')}" for name in names if check.get(name)]
    # Where they share the cores, either of them is.
    parts = [] if broker in (ONE_WORKER, TWO_WORKERS) else result.get("steps", [result])
    busy = any(part["load"]["is_bottleneck"] for part in parts if part.get("step") not in DISTURBING)
    noted += [BOTTLENECK] if busy else []
    # CPU time depends little on it, and latency does.
    if result["is_latency"] and result["disturbed"] > QUIET:
        noted.append(f"for {result['disturbed']:.0%} of the time others had the cores, in the quietest of {result['tries']} "
                     "tries: this is not the broker's latency alone")
    return noted


# How it looks.


def number(value):
    """Three significant digits."""
    digits = 3 if value < 1 else 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:,.{digits}f}"


def cell(row, results, broker, bold=False):
    found = values(row, results, broker)
    if not found:
        return "–"
    middle = number(statistics.median(found))
    middle = f"**{middle}**" if bold else middle
    return f"{middle} ({number(min(found))}–{number(max(found))})" if len(found) > 1 else middle


def line(row, results, brokers):
    """A row for the terminal, while the others are measured."""
    cells = [f"{broker} {cell(row, results, broker)}" for broker in brokers]
    verdict = goal(row, results)
    return f"{row.name:45} " + "  ".join(cells) + (f"  {verdict}" if verdict != "–" else "")


def goal(row, results):
    """The goal, and whether it is met, where the one whom it is about was measured."""
    reached = ratio(row, results, [row.of])
    if row.goal is None or reached is None:
        return "–"
    wanted = f"{number(row.goal)} of {row.of}"
    return f"**met** ({wanted})" if reached <= row.goal else f"short: {number(reached)}, goal {wanted}"


def table(group, results, brokers, notes):
    """The rows of a group. Appends to the notes what has to be known to read them."""
    about = group.rows[0].load.about
    has_floor = FLOOR in brokers and any(row.of == FLOOR and row.goal for row in group.rows)
    brokers = [broker for broker in brokers if broker != FLOOR or has_floor]
    rivals = [NONE] if about == DURABILITY else [broker for broker in brokers if broker not in (OURS_OF[about], FLOOR, FSYNC)]
    heads = ["", "unit", *brokers, {WORKERS: "ratio", DURABILITY: "buffered of none"}.get(about, "of the best other")]
    heads += ["of the floor"] if has_floor else []
    heads += [] if about == WORKERS else ["goal"]
    lines = ["| " + " | ".join(heads) + " |", "|" + " --- |" * len(heads)]
    for row in group.rows:
        medians = [value for value in (median(row, results, broker) for broker in brokers if broker != FLOOR) if value]
        cells = [row.name, row.unit]
        for broker in brokers:
            is_best = broker != FLOOR and medians and median(row, results, broker) == min(medians)
            text = cell(row, results, broker, bold=is_best)
            noted = {note for result in results.get(row.load, {}).get(broker, []) for note in faults(broker, result)}
            # Memory does not depend on who is faster.
            noted = sorted(noted - ({BOTTLENECK} if row.unit == "bytes" else set()))
            if noted:
                over = "" if row.load.transport == "tcp" else f" over {row.load.transport}"
                note = f"{row.load.words}{over}, {broker}: {'; '.join(noted)}"
                if note not in notes:
                    notes.append(note)
                text += f" [{notes.index(note) + 1}]"
            cells.append(text)
        shown = [ratio(row, results, rivals)] + ([ratio(row, results, [FLOOR])] if has_floor else [])
        cells += [number(value) if value is not None else "–" for value in shown]
        cells += [] if about == WORKERS else [goal(row, results)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


# Why rows are short.


def bounds():
    """What people have written of each group, by its heading. A group that is missing there, or one that is too much, is a
    mistake of ours."""
    parts = re.split(r"(?m)^## ", BOUNDS.read_text())[1:]
    written = {heading.strip(): text.strip() for heading, _, text in (part.partition("\n") for part in parts)}
    headings = [group.heading for group in GROUPS]
    if sorted(written) != sorted(headings):
        raise SystemExit(f"{BOUNDS}: has the headings {sorted(written)}, expected {sorted(headings)}")
    return written


def reason(row, text):
    """The first sentence of the paragraph about a row: of the one that begins with its name, or with how its name begins."""
    for paragraph in re.split(r"\n\s*\n", text):
        begin = re.match(r"(\*\*[^*]+\*\*(, | and )?)+:\s*", paragraph)
        names = re.findall(r"\*\*([^*]+)\*\*", begin[0]) if begin else []
        if any(row.name.startswith(name) for name in names):
            return re.split(r"(?<=[a-z0-9)`%])\.(?:\s|$)", " ".join(paragraph[begin.end():].split()))[0]
    return ""


def summary(groups, results, written):
    """How many goals are met; the others, each with its reason."""
    goals = [(group, row, ratio(row, results, [row.of])) for group in groups for row in group.rows if row.goal is not None]
    goals = [(group, row, reached) for group, row, reached in goals if reached is not None]
    short = [(group, row, reached) for group, row, reached in goals if reached > row.goal]
    text = f"{len(goals) - len(short)} of {len(goals)} goals are met."
    if not short:
        return text
    lines = ["| short of its goal | reached | goal | why |", "| --- | --- | --- | --- |"]
    for group, row, reached in short:
        anchor = re.sub(r"[^a-z0-9 -]", "", group.heading.lower()).replace(" ", "-")
        why = reason(row, written[group.heading]).replace("|", "\\|")
        why = f"{why} ([more](#{anchor}))" if why else f"[{group.heading}](#{anchor})"
        lines.append(f"| {row.name} | {number(reached)} | {number(row.goal)} of {row.of} | {why} |")
    return f"{text} These are not:\n\n" + "\n".join(lines)


def document(groups, results, brokers_of, head):
    """All of it. `brokers_of` a group: the columns of its table. `head`: what was measured, how and where."""
    written, notes = bounds(), []
    parts = ["# What a message costs", head, "## Goals", summary(groups, results, written)]
    for group in groups:
        text = re.sub(r"(?m)^#", "##", written[group.heading]).replace("](", "](benches/")
        parts += [f"## {group.heading}", table(group, results, brokers_of(group), notes), text]
    if notes:
        parts += ["## Notes", "\n".join(f"{at}. {note}" for at, note in enumerate(notes, 1))]
    return "\n\n".join(part for part in parts if part) + "\n"
