"""Learners that take transitions of any behaviour, as long as it tries everything."""
