"""The coordinator's dashboard: a live page of studies. Nothing of it is fetched from elsewhere."""
