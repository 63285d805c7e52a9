"""Pages, charts and plots that reports are made of."""
