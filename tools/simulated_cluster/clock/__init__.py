"""Virtual time: greenlets in the place of threads and tasks."""
