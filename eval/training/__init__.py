"""Training of the built-in reader and judge from the training files, and their export into the package."""
