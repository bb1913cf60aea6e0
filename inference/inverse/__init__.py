"""From demonstrations to rewards."""
