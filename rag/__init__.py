"""The core of Citewell: records, catalog, indexes, retrieval and answers.

Knows no web framework, no document parser and no evaluation suite.
"""
