"""report.html: its page, its plots, and what only it draws."""
