"""The paper's table, federated: objectives x settings x seeds, each cell a study of its own, resumable cell by cell."""
