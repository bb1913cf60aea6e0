"""Files: results that are saved whole, and loaded without running any code."""
