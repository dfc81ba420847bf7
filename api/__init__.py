"""The doors of Citewell: the REST API and its pages, the server that runs them, and the command line.

May import ``rag``, ``ingest`` and ``eval``; nothing imports it. Status codes, exit codes and HTML live here alone.
"""
