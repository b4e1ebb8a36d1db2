"""Asking a served model a suite's items, through inspect-ai."""
