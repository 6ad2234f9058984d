"""Training on a cluster: what each worker does, and Ray's part in it (train.py alone imports Ray)."""
