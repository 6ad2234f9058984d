"""The ten benchmarks of the paper: benchmarks.yaml says what and where they are, rows.py how a record is put."""
