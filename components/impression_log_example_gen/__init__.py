"""Day-partitioned impression logs in Parquet -> Examples."""
