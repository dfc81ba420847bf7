"""The commands of ``citewell``, one file a group: each says what was asked in the words of the rooms behind it.

Heavy libraries are imported inside the command that needs them, so that ``citewell --help`` is instant.
"""
