"""Open-loop plans, and policies under partial observability."""
