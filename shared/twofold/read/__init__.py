"""The read side: pages, statistics, live streams, the feed, exports. It never imports the write side."""
