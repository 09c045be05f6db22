"""What it means: metrics, statistics, verdict, tables and the report."""
