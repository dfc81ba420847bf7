"""The ingest journey: files and folders to parsed documents, chunks, vectors and one commit.

Imports ``rag`` only. Each file format library has one owner file here: ``partition`` (unstructured), ``pdf``
(pypdfium2), ``detect`` (magika), ``sheets`` (openpyxl, xlrd), ``mail`` (oxmsg); ``parse`` is their door.
"""
