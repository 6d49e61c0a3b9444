"""How notes fall to virtual hospitals."""

import numpy as np
import pytest

from client.notes.store import NoteStore
from common.errors import InputError
from common.slug import slug
from simulations.partition import at_random, by_column


def test_by_column_every_note_falls_to_its_hospital(notes: NoteStore) -> None:
    partition = by_column(notes)
    sites = notes.column("site")
    for name, rows in partition.rows.items():
        assert set(sites[rows]) == {name}
    assert sum(len(rows) for rows in partition.rows.values()) == len(notes)


def test_at_random_a_patient_is_at_one_site_and_the_seed_decides(notes: NoteStore) -> None:
    partition = at_random(notes, 3, seed=1)
    patients = notes.column("patient")
    seen = [set(patients[rows]) for rows in partition.rows.values()]
    assert not (seen[0] & seen[1] or seen[1] & seen[2] or seen[0] & seen[2])
    assert sum(map(len, partition.rows.values())) == len(notes)
    assert all(np.array_equal(partition.rows[n], at_random(notes, 3, seed=1).rows[n]) for n in partition.rows)
    assert any(not np.array_equal(partition.rows[n], at_random(notes, 3, seed=2).rows[n]) for n in partition.rows)


def test_a_site_with_too_few_notes_is_left_out_with_its_number(notes: NoteStore) -> None:
    sites = notes.column("site")
    small = str(sites[0])
    rows = np.concatenate([np.flatnonzero(sites == small)[:5], np.flatnonzero(sites != small)])
    partition = by_column(notes.view(rows))
    assert small not in partition.rows
    assert "at least 20" in partition.left_out[small]
    with pytest.raises(InputError, match="No site has the 20"):
        by_column(notes.view(rows[:5]))


@pytest.mark.parametrize("name", ["../../etc", "A B", "a/b", "Ærøskøbing", "", "x" * 200])
def test_a_folder_name_is_harmless_whatever_the_site_is_called(name: str) -> None:
    assert set(slug(name)) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
    assert 0 < len(slug(name)) <= 60


def test_names_that_look_alike_have_folders_of_their_own() -> None:
    assert len({slug("St Mary"), slug("st mary"), slug("st-mary"), slug("St. Mary")}) == 4
