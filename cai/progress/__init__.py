"""Progress: what long runs say of themselves, to a log, a bar and a callback."""
