"""The coordinator of a federation over real servers: its folder, its certificates, its sites, what runs there."""
