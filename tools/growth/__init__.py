"""What bench_growth.py fills and measures: stores and journals of growing size."""
