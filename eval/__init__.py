"""Measured trust: retrieval and answer quality on golden questions. Knows `rag` only."""
