"""What a table says in sentences, computed from its scores and differences."""

from common.results import POOLED, Estimate
from common.table import Difference, Table
from server.figures.differences import against, pooled_differences, row_of
from server.figures.rows import Column, Row, Rows, Value
from server.figures.style import interval
from server.report.words import count, listed

SIGNIFICANCE = 0.05


def lead(rows: Rows) -> list[str]:
    """What a reader should know first, a paragraph each."""
    sentences = [sentence for task in rows.tasks for sentence in _best_sentences(rows, task)]
    table = rows.table
    gaps = []
    if table.left_out_sites:
        gaps.append(f"{count(len(table.left_out_sites), 'site')} left out of the study")
    if table.not_scored:
        gaps.append(f"{count(len(table.not_scored), 'task')} not scored at a site")
    if gaps:
        sentences.append(f"Not in these numbers: {listed(gaps)} (reasons under Sites).")
    return [cells_sentence(table), *sentences]


def cells_sentence(table: Table) -> str:
    done = len(table.cells)
    sentence = f"{done:,} of {count(max(table.planned, done), 'planned cell')} done"
    if table.status == "running":
        return f"{sentence}; the table is still growing, and what is best in it may change."
    if done < table.planned:
        return f"{sentence}; the missing ones stand as – in the table."
    return f"{sentence}."


def verdicts(rows: Rows) -> list[tuple[str, str]]:
    """Each federated objective on each task, frozen and with all labels, against everything it was compared with."""
    several = len(rows.tasks) > 1
    found = []
    for task in rows.tasks:
        differences = [d for of in pooled_differences(rows.table, task, "frozen").values() for d in of]
        for arm in rows.arms if "federated" in rows.settings else []:
            of_arm = [d for d in differences if d.shots is None and row_of(d) == Row(arm, "federated")]
            words = _verdict(of_arm) if of_arm else f"not compared{' yet' if rows.table.status == 'running' else ''}"
            found.append((f"{arm}, {task}" if several else arm, words))
    return found


def false_alarms(table: Table) -> str:
    """How many of the differences that are shown would look clear, were there nothing in any of them."""
    shown = sum(d.site == POOLED for d in table.differences)
    expected = round(SIGNIFICANCE * shown)
    if expected < 1:
        return (
            "Each difference has an interval of its own: of twenty that are truly nothing, about one will look clear."
        )
    return (
        f"There are {shown:,} differences below, each with an interval of its own: were there nothing in any of them, "
        f"about {expected} would still look clear."
    )


def budget_sentence(rows: Rows) -> str:
    """Whether all trained cells read as much."""
    table = rows.table
    read = [cell.consumed.tokens for row in rows.trained for cell in rows.cells.get(row, {}).values()]
    read = [tokens for tokens in read if tokens > 0]
    sentences = []
    if table.token_budget is not None:
        sentences.append(
            f"The budget is {count(table.token_budget, 'token')} a site and round, "
            f"so {table.token_budget * len(table.sites) * table.rounds:,} for a cell."
        )
    if len(read) > 1:
        apart = max(read) / min(read) - 1
        sentences.append(
            f"The trained cells read {min(read):,} to {max(read):,} tokens: "
            + ("all as many." if apart == 0 else f"the most read {100 * apart:.1f} % more than the least.")
        )
    return " ".join(sentences)


def where(rows: Rows) -> str:
    return "on the pooled test notes" if rows.place == POOLED else "as a mean over the sites"


def _best_sentences(rows: Rows, task: str) -> list[str]:
    columns = [Column(task), *(Column(task, "frozen", n) for n in rows.shots(task, "frozen")[:1])]
    sentences = []
    for column in columns:
        values = {row: value for row in rows.all if (value := rows.at(row, column, rows.place))}
        if not values:
            continue
        most = max(value.sites for value in values.values())
        values = {row: value for row, value in values.items() if value.sites == most}
        best = max(values, key=lambda row: values[row].estimate.value)
        labels = "all labels" if column.shots is None else f"{column.shots} labelled notes a class"
        task_words = f"{task}: with" if len(rows.tasks) > 1 else "With"
        sentence = (
            f"{task_words} {labels} and a frozen encoder, the best {where(rows)} is {_scored(best, values[best])}"
        )
        federated = [row for row in values if row.setting == "federated"]
        if best.setting != "federated" and federated:
            second = max(federated, key=lambda row: values[row].estimate.value)
            sentence += f"; the best federated one is {second.arm}, {_f1(values[second])}"
        sentences.append(f"{sentence}; n = {values[best].n_test:,} test notes.")
    return sentences


def _scored(row: Row, value: Value) -> str:
    name = f"{row.setting} {row.arm}" if row.trained else the(row.name)
    return f"{name}, {_f1(value)}"


def _f1(value: Value) -> str:
    over = f"{value.seeds} seeds" if value.over == "seeds" else value.over
    text = interval(value.estimate)
    return f"with macro-F1 {text.removesuffix(')')}, over {over})" if over else f"with macro-F1 {text}"


def _verdict(differences: list[Difference]) -> str:
    clauses = []
    for verdict, words in (
        ("better", "better than"),
        ("worse", "worse than"),
        ("no clear difference", "no clear difference from"),
    ):
        others = [f"{the(against(d))} ({_signed(d.difference)})" for d in differences if d.verdict == verdict]
        if others:
            clauses.append(f"{words} {listed(others)}")
    return "; ".join(clauses)


def _signed(difference: Estimate) -> str:
    """Without the brackets of `interval`."""
    return interval(difference, signed=True).replace(" (", ", ").removesuffix(")")


def the(name: str) -> str:
    """`the public base`, but `TF-IDF`."""
    return f"the {name}" if name in ("public base", "majority class") else name
