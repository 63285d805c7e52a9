"""What is wrong with photos before anybody trains on them: duplicates, leaks, labels, and pictures of nothing."""
