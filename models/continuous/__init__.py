"""Models with continuous states."""
