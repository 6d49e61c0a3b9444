"""The schema of `table.json` in the docs is the one that the code writes by."""

import json
from pathlib import Path

from common.table import Table

DOCS = Path(__file__).parents[2] / "docs"


def test_the_documented_schema_is_the_generated_one() -> None:
    written = (DOCS / "table.schema.json").read_text(encoding="utf-8")
    assert written == json.dumps(Table.model_json_schema(), indent=2) + "\n", "regenerate it from common.table.Table"
