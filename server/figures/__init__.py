"""The figures of a run: pure functions from a `Summary` to a Plotly figure, shared by the report and the dashboard.
Those of a table go by its `Rows` (rows.py), and are in table_scores.py, differences.py and space.py.

A figure has no title (the page that shows it has one), a transparent background, and a font colour for a light page; a
page that is dark sets `layout.font.color`. A figure with nothing to show has no traces.
"""

from server.figures.embedding import embedding_map
from server.figures.privacy import epsilon_spent
from server.figures.round_space import space_lines
from server.figures.scores import few_shot, forest, score_dots
from server.figures.training import held_out_loss, held_out_part, training_loss

__all__ = [
    "embedding_map",
    "epsilon_spent",
    "few_shot",
    "forest",
    "held_out_loss",
    "held_out_part",
    "score_dots",
    "space_lines",
    "training_loss",
]
