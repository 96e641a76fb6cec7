"""What ranks did over time, and pictures of it."""
