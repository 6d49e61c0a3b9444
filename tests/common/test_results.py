"""The schema of `summary.json` in the docs is the one that the code writes by."""

import json
from pathlib import Path

from common.results import EmbeddingMap, Summary

DOCS = Path(__file__).parents[2] / "docs"


def test_the_documented_schema_is_the_generated_one() -> None:
    written = (DOCS / "summary.schema.json").read_text(encoding="utf-8")
    assert written == json.dumps(Summary.model_json_schema(), indent=2) + "\n", "regenerate it: see docs/summary.md"


def test_every_key_is_described() -> None:
    words = (DOCS / "summary.md").read_text(encoding="utf-8")
    schema = Summary.model_json_schema()
    keys = {key for part in (schema, *schema["$defs"].values()) for key in part["properties"]}
    assert [key for key in sorted(keys) if f"`{key}`" not in words] == []


def test_an_embedding_map_is_by_pca_unless_said() -> None:
    assert EmbeddingMap(points=[], model="base", explained=[0.2, 0.1]).method == "PCA"
