"""What was measured: rows of values for each subject, their goals, and how both are told."""

import statistics
import sys

OURS = "comb"
# Of these units less is better; of all others more is.
LESS_IS_BETTER = {"s", "ms", "µs", "MiB", "×", "requests", "packs"}


def median(values):
    """The middle of what was measured; None of nothing."""
    return statistics.median(values) if values else None


def number(value):
    """A number as a reader wants it."""
    if value is None:
        return "–"
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def told(values):
    """Median and range."""
    spread = f" [{number(min(values))}–{number(max(values))}]" if len(values) > 1 else ""
    return number(median(values)) + spread


class Row:
    """One thing that is measured, for one subject or several.

    A goal is (reference, factor): factor times what a subject of that name has, at most where less is better and else at least;
    without a name it is the factor itself. A third word names who shall reach it, if that is not Comb on the usual store.
    """

    def __init__(self, name, unit, goals=(), more=False):
        # `more`: more is better, whatever the unit says.
        self.name, self.unit, self.goals = name, unit, list(goals)
        self.less = unit in LESS_IS_BETTER and not more
        self.values, self.busy, self.memory, self.failures = {}, {}, {}, {}
        # Who was measured before the disk had come to rest.
        self.unsettled = set()

    def add(self, subject, value, busy=None, memory=None):
        """One more measurement: its value, the machine's busy seconds, the most memory in MiB."""
        self.values.setdefault(subject, []).append(value)
        if busy is not None:
            self.busy.setdefault(subject, []).append(busy)
        if memory is not None:
            self.memory[subject] = max(memory, self.memory.get(subject, 0))

    def judge(self):
        """Each goal in words, and whether all are reached; None where that was not measured, or there are none."""
        words, verdicts = [], []
        for reference, factor, *who in self.goals:
            ours = median(self.values.get(who[0] if who else OURS))
            sign = "≤" if self.less else "≥"
            goal = (f"{who[0]} " if who else "") + f"{sign} {number(factor)}" + (f" × {reference}" if reference else "")
            theirs = median(self.values.get(reference)) if reference else 1
            if ours is None or theirs is None:
                words.append(goal)
                verdicts.append(None)
                continue
            ratio = ours / theirs if theirs else float("inf")
            reached = ratio <= factor if self.less else ratio >= factor
            verdicts.append(reached)
            words.append(f"{goal}: {number(ratio)}" if reference else goal)
        if False in verdicts:
            return "; ".join(words), False
        return "; ".join(words), True if verdicts and None not in verdicts else None

    def json(self):
        """For the file of raw numbers."""
        goal, reached = self.judge()
        return {
            "row": self.name, "unit": self.unit, "less_is_better": self.less, "values": self.values,
            "medians": {one: median(values) for one, values in self.values.items()},
            "ranges": {one: [min(values), max(values)] for one, values in self.values.items()},
            "busy_s": self.busy, "memory_mib": self.memory, "unsettled": sorted(self.unsettled),
            "goal": goal, "reached": reached, "failures": self.failures,
        }  # fmt: skip


class Table:
    """Rows with the same subjects."""

    def __init__(self, title, subjects):
        self.title, self.subjects, self.rows = title, subjects, []
        # Who could not go on with the rest of the rows, and why.
        self.failures = {}

    def row(self, name, unit, goals=(), more=False):
        """The row of this name, new or old."""
        for row in self.rows:
            if row.name == name:
                return row
        self.rows.append(Row(name, unit, goals, more))
        return self.rows[-1]

    def add(self, name, values, unit, most=None, least=None):
        """A row of Comb alone, told as soon as it is measured."""
        bound = most if least is None else least
        row = self.row(name, unit, [] if bound is None else [(None, bound)])
        row.less = least is None
        for value in values if isinstance(values, list) else [values]:
            row.add(OURS, value)
        print(f"{name}: {told(row.values[OURS])} {unit}", file=sys.stderr, flush=True)

    def markdown(self):
        """The table, and below it what it took of processor and memory where that was measured."""
        there = [one for one in self.subjects if any(one in row.values for row in self.rows)]
        lines = [f"**{self.title}**", "", "| | " + " | ".join(there) + " | goal | |", "|---|" + "---:|" * len(there) + "---|---|"]
        for row in self.rows:
            cells = [told(row.values[one]) if one in row.values else ("failed" if one in row.failures else "–") for one in there]
            cells = [cell + " \\*" * (one in row.unsettled) for one, cell in zip(there, cells)]
            goal, reached = row.judge()
            verdict = {True: "yes", False: "**no**", None: "not measured" if row.goals else ""}[reached]
            lines.append(f"| {row.name}{', ' + row.unit if row.unit else ''} | " + " | ".join(cells) + f" | {goal} | {verdict} |")
        if any(row.unsettled for row in self.rows):
            lines += ["", "\\* measured before the disk had come to rest"]
        busy = [row for row in self.rows if row.busy]
        if busy:
            lines += ["", "Seconds in which the machine's cores were busy, everything included; in brackets the most memory, MiB:", ""]
            lines += ["| | " + " | ".join(there) + " |", "|---|" + "---:|" * len(there)]
            for row in busy:
                memory = {one: f" ({number(row.memory[one])})" if one in row.memory else "" for one in there}
                cells = [number(median(row.busy.get(one))) + memory[one] for one in there]
                lines.append(f"| {row.name} | " + " | ".join(cells) + " |")
        return "\n".join(lines) + "\n"

    def json(self):
        """For the file of raw numbers."""
        return {"title": self.title, "subjects": self.subjects, "failures": self.failures, "rows": [row.json() for row in self.rows]}


class Curves:
    """How something grows: for each row and subject, values by how much there is."""

    def __init__(self, title, axis):
        self.title, self.axis, self.rows = title, axis, {}
        # Whom it could not be measured for, or only up to some size, and why.
        self.failures = {}

    def add(self, name, unit, subject, amount, value):
        """One point."""
        self.rows.setdefault((name, unit), {}).setdefault(subject, []).append((amount, value))
        print(f"{subject}: {name}, {self.axis} {amount:,}: {number(value)} {unit}", file=sys.stderr, flush=True)

    def markdown(self):
        """A line for each row and subject."""
        amounts = sorted({amount for lines in self.rows.values() for points in lines.values() for amount, _ in points})
        lines = [f"**{self.title}**", "", f"| {self.axis} | | " + " | ".join(f"{amount:,}" for amount in amounts) + " |"]
        lines.append("|---|---|" + "---:|" * len(amounts))
        for (name, unit), subjects in self.rows.items():
            for subject, points in subjects.items():
                by = dict(points)
                lines.append(f"| {name}, {unit} | {subject} | " + " | ".join(number(by.get(amount)) for amount in amounts) + " |")
        lines += ["", *(f"- {who}: {why}" for who, why in self.failures.items())] if self.failures else []
        return "\n".join(lines) + "\n"

    def json(self):
        """For the file of raw numbers."""
        rows = [{"row": name, "unit": unit, "points": subjects} for (name, unit), subjects in self.rows.items()]
        return {"title": self.title, "axis": self.axis, "failures": self.failures, "rows": rows}
