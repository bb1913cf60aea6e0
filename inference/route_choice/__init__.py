"""Which routes are taken, and where somebody is going."""
