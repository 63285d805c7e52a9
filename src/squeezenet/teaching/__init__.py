"""New heads on frozen networks, from a few photos and without torch: docs/teaching.md."""
