"""The naive log function."""
