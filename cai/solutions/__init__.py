"""What exact methods return on tables, and what can be asked of it."""
