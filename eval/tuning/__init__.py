"""Adapts the searches of one collection to what is asked of it: learnt on some questions, judged on others."""
