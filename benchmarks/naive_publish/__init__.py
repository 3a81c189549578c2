"""The naive dual write."""
