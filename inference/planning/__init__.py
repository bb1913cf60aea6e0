"""Plans without feedback, and policies with partial sight."""
