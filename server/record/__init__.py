"""The run record: what happened in a study, in a database, for whoever looks on while it runs and ever after."""
