"""Networks on disk: our own directories, and the files of the PyTorch originals."""
