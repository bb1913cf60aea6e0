"""Results of exact methods on tables, and queries on them."""
