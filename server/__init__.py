"""At the coordinator: rounds, checkpoints, reports; never a note."""
