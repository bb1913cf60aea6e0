"""Models with finitely many states and actions."""
