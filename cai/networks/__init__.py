"""Networks, and heads that turn what they compute into distributions over actions."""
