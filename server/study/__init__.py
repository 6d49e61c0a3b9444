"""A study over real servers: its folder, what happens in it, and how the coordinator starts, follows and resumes it."""
