"""The read side: pages, statistics, live streams, the feed, and exports. It never imports the write side."""
