"""Files that other programs open: HTML pages for browsers, CSV tables for spreadsheets."""
