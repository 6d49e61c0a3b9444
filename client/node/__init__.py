"""The site's node: the process that speaks with the coordinator, and the resident worker that trains."""
