"""Bridges to single array libraries, imported only when an array of that library is in hand."""
